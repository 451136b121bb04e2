#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace duoflow::launch {

// Insertions, deletions and replacements of one character that make one of the other (Levenshtein).
std::size_t edit_distance(std::string const& a, std::string const& b);
// The closest of `names` if it differs in less than half its characters, else "".
std::string nearest_name(std::string const& name, std::vector<std::string> const& names);

}  // namespace duoflow::launch
