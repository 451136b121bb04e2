#pragma once
// The data folders of a run as the command line names them.

#include <cstdint>
#include <string>
#include <vector>

namespace duoflow::launch {

struct DataFolder {
  std::string path;
  std::uint64_t weight = 0;  // in billionths; 0: none given, each of the folders counts by its samples
};

// --data FOLDER or FOLDER=WEIGHT, WEIGHT a decimal number: how often the folder is drawn from, relative to the others.
// What exists under the whole text is a folder without weight. ConfigError: a weight that is none, weights for some of
// the folders only, a folder given twice.
std::vector<DataFolder> parse_data_folders(std::vector<std::string> const& texts);

std::string joined_paths(std::vector<DataFolder> const& folders);  // for messages

}  // namespace duoflow::launch
