#pragma once
// TensorBoard event files (events.out.tfevents.*): protocol buffers in TFRecord frames, written here without
// TensorFlow. One process writes (rank 0).

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace duoflow::launch {

class TensorBoardWriter {
 public:
  // Starts a new file in directory (made if missing), which TensorBoard reads after those already there. Points of
  // those beyond keep_through_step are superseded: TensorBoard drops them when it reads the new file's first record.
  // Throws std::runtime_error naming the file.
  TensorBoardWriter(std::filesystem::path const& directory, std::int64_t keep_through_step);

  // Buffered until flush (or destruction). Throw std::runtime_error when the file cannot be written.
  void scalar(std::string_view tag, std::int64_t step, double value);  // kept as fp32; may be NaN
  void image(std::string_view tag, std::int64_t step, std::string_view png, int height, int width);  // RGB
  void flush();

  std::filesystem::path const& path() const { return path_; }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  void write_summary(std::int64_t step, std::string const& summary);
  void write_record(std::string const& event);

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace duoflow::launch
