#pragma once
// A configuration's YAML text as a list of values, before anything is known of the keys.

#include <string>
#include <vector>

#include <yaml-cpp/yaml.h>

namespace duoflow::launch {

struct Leaf {
  std::string spelling;  // the key as the user wrote it, with its sections: "training.lr"
  YAML::Node value;      // no map
  std::string where;     // FILE:LINE
};

// In the order of the text; empty for an empty one. Throws ConfigError beginning with `origin`: no YAML, no mapping, a
// key that is no text or is there twice. And what no configuration is, but a few bytes can make: more than 1 MiB of
// text, 32 levels or 10,000 values (anchors repeat whole sections, or a section inside itself).
std::vector<Leaf> read_leaves(std::string const& yaml, std::string const& origin);

}  // namespace duoflow::launch
