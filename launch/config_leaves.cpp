#include "launch/config_leaves.h"

#include <set>

#include <fmt/format.h>

#include "launch/config.h"

namespace duoflow::launch {
namespace {

constexpr std::size_t kMostConfigBytes = std::size_t{1} << 20, kMostLeaves = 10'000;
constexpr int kMostConfigLevels = 32;

class Leaves {
 public:
  explicit Leaves(std::string const& origin) : origin_(origin) {}

  void collect(YAML::Node const& node, std::string const& prefix, int level) {
    if (level > kMostConfigLevels) refuse(fmt::format("sections nested deeper than {} levels", kMostConfigLevels));
    std::set<std::string> names;
    for (auto const& item : node) {
      auto const name = item.first.as<std::string>();
      auto const key = prefix.empty() ? name : prefix + "." + name;
      auto const where = fmt::format("{}:{}", origin_, item.first.Mark().line + 1);
      if (!names.insert(name).second) throw ConfigError(fmt::format("{}: {} is there twice; keep one", where, key));
      if (item.second.IsMap())
        collect(item.second, key, level + 1);
      else
        found_.push_back({key, item.second, where});
      if (++items_ > kMostLeaves) refuse(fmt::format("more than {} values", kMostLeaves));
    }
  }

  std::vector<Leaf> take() { return std::move(found_); }

 private:
  [[noreturn]] void refuse(std::string const& what) const {
    throw ConfigError(fmt::format("{}: {} (anchors that repeat sections? it is no configuration); write the keys out",
                                  origin_, what));
  }

  std::string const& origin_;
  std::size_t items_ = 0;
  std::vector<Leaf> found_;
};

}  // namespace

std::vector<Leaf> read_leaves(std::string const& yaml, std::string const& origin) {
  if (yaml.size() > kMostConfigBytes)
    throw ConfigError(
        fmt::format("{}: {} bytes (a configuration has a few thousand); give a configuration", origin, yaml.size()));
  try {
    auto const root = YAML::Load(yaml);
    if (!root.IsDefined() || root.IsNull()) return {};
    if (!root.IsMap())
      throw ConfigError(fmt::format("{}: not a YAML mapping (a config is `key: value` lines)", origin));
    Leaves leaves(origin);
    leaves.collect(root, "", 1);
    return leaves.take();
  } catch (YAML::Exception const& error) {
    throw ConfigError(fmt::format("{}: not valid YAML ({}); correct that line", origin, error.what()));
  }
}

}  // namespace duoflow::launch
