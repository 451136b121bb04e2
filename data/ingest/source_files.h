#pragma once
// The files an ingest reads, on disk or inside tar archives: a path below an opened archive names its member
// ("/data/set.tar/train/full_list.txt"). Private to data/.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/ingest/tar_index.h"

namespace duoflow::data {

class SourceFiles {
 public:
  void open_archive(std::string const& path);  // absolute; opening it again does nothing
  bool is_file(std::string const& path) const;
  bool is_folder(std::string const& path) const;
  bool in_archive(std::string const& path) const { return find(path).first != nullptr; }
  std::vector<std::string> entries(std::string const& folder) const;  // names, sorted
  std::string read(std::string const& path) const;                   // DataError. Safe from several threads.

  // Where the file that PATH named on another machine lies here: the longest tail of PATH below `near` or one of the three
  // folders above it. {folder that PATH begins with, the one that takes its place}.
  std::optional<std::pair<std::string, std::string>> moved(std::string const& path, std::string const& near) const;

 private:
  std::pair<TarIndex const*, std::string> find(std::string const& path) const;  // archive and name in it
  std::map<std::string, std::unique_ptr<TarIndex>> archives_;
};

}  // namespace duoflow::data
