#pragma once
// Private to the configuration: what follows for the values that no key set, once all that is written has been read.

#include <set>
#include <string>

#include "launch/config.h"

namespace duoflow::launch {

enum class WrittenBy { user, duoflow };  // duoflow: a run's own effective config, maybe an earlier build's

// Which editor a class of the LVSM family's code has; "": none (stage 1). ConfigError listing the classes there are.
std::string const& reference_editor(std::string const& class_name);

// Defaults that depend on other keys, spellings brought into agreement, values that follow, and the notes of keys without
// effect. `overridden`: keys that the command line set. ConfigError where two keys contradict each other.
void resolve_config(Config& config, std::set<std::string> const& overridden, WrittenBy writer);

}  // namespace duoflow::launch
