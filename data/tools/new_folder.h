#pragma once
// An output folder that has its name only when it is whole: everything is written under PATH.tmp-<pid>, then renamed.

#include <cstdint>
#include <string>

namespace duoflow::data {

class NewFolder {
 public:
  // Makes the working folder. DataError when PATH is there already and is anything but an empty folder.
  explicit NewFolder(std::string const& path);
  ~NewFolder();  // removes the working folder unless finished
  NewFolder(NewFolder const&) = delete;
  NewFolder& operator=(NewFolder const&) = delete;

  std::string const& working() const { return working_; }
  // DataError saying how much is missing, when the file system has less than `bytes` left.
  void require_space(std::uint64_t bytes) const;
  // Synced, then PATH. DataError when something has taken the name meanwhile.
  void finish();

 private:
  std::string path_, working_;
  bool finished_ = false;
};

std::string size_text(std::uint64_t bytes);  // "512 bytes", "3.4 MiB", "1.20 GiB"

}  // namespace duoflow::data
