#include "launch/data_folders.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "launch/config.h"

namespace duoflow::launch {
namespace {

constexpr std::size_t kMostWholeDigits = 6, kFractionDigits = 9;  // sums of weights stay below Mixture's 2^62

bool all_digits(std::string const& text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

// "0.25" -> 250000000. Exact, which a double is not: the weights are proportions of whole numbers. 0: not a weight.
std::uint64_t billionths(std::string const& text) {
  auto const dot = text.find('.');
  auto const whole = text.substr(0, dot);
  auto fraction = dot == std::string::npos ? "" : text.substr(dot + 1);
  if (whole.size() + fraction.size() == 0 || whole.size() > kMostWholeDigits || fraction.size() > kFractionDigits ||
      !all_digits(whole + fraction))
    return 0;
  fraction.resize(kFractionDigits, '0');
  return std::stoull(whole + fraction);
}

DataFolder parse_data_folder(std::string const& text) {
  auto const equals = text.rfind('=');
  if (equals == std::string::npos || std::filesystem::exists(text)) return {text};
  DataFolder const folder{text.substr(0, equals), billionths(text.substr(equals + 1))};
  if (folder.path.empty() || folder.weight == 0)
    throw ConfigError(fmt::format(
        "--data {} is neither a folder nor FOLDER=WEIGHT (a weight is a decimal number above 0 of at most {} "
        "digits before the point and {} behind it); correct it",
        text, kMostWholeDigits, kFractionDigits));
  return folder;
}

}  // namespace

std::vector<DataFolder> parse_data_folders(std::vector<std::string> const& texts) {
  std::vector<DataFolder> folders;
  std::set<std::filesystem::path> known;
  for (auto const& text : texts) {
    folders.push_back(parse_data_folder(text));
    auto const& path = folders.back().path;
    if (!known.insert(std::filesystem::weakly_canonical(std::filesystem::absolute(path))).second)
      throw ConfigError(
          fmt::format("--data {} is given twice (it would be mixed with itself); give it once, with a weight", path));
    if ((folders.back().weight == 0) != (folders.front().weight == 0))
      throw ConfigError(
          fmt::format("--data {} and --data {}: one has a weight and the other none (no share follows from that); give "
                      "every folder a weight, or none",
                      texts.front(), text));
  }
  return folders;
}

std::string joined_paths(std::vector<DataFolder> const& folders) {
  std::vector<std::string> paths;
  for (auto const& folder : folders) paths.push_back(folder.path);
  return fmt::format("{}", fmt::join(paths, " + "));
}

}  // namespace duoflow::launch
