#include "data/order/sample_log.h"

#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <vector>

#include "data/error.h"
#include "data/file.h"

namespace duoflow::data {

SampleLog::SampleLog(std::string const& path) : path_(path) {
  std::error_code ignored;  // what is wrong with the folder shows at the file
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  file_.open(path, std::ios::app);
  if (!file_)
    throw DataError(
        fmt::format("{} cannot be opened for writing (the list of samples), make room for it or leave it out", path));
}

void SampleLog::write(Batch const& batch, BatchSource const& source) {
  std::vector<std::byte> sample;
  for (std::int64_t i = 0; i < batch.samples; ++i) {
    std::int64_t position = 0, folder = 0, number = 0;
    sample.clear();
    for (auto const& field : source.fields()) {
      auto const bytes = field.bytes_per_sample();
      auto const* const begin = batch.fields.at(field.name) + static_cast<std::size_t>(i) * bytes;
      sample.insert(sample.end(), begin, begin + bytes);
      if (field.name == "position") std::memcpy(&position, begin, sizeof(position));
      if (field.name == "folder") std::memcpy(&folder, begin, sizeof(folder));
      if (field.name == "pair" || field.name == "scene") std::memcpy(&number, begin, sizeof(number));
    }
    file_ << fmt::format("{}\t{}\t{}\t{}\n", position, folder, number, xxh3_hex(sample.data(), sample.size()));
  }
  if (!file_.flush())
    throw DataError(
        fmt::format("{} takes no more lines (the list of samples), make room for it or leave it out", path_));
}

}  // namespace duoflow::data
