#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace duoflow::model {

// Levenshtein: how many characters to insert, remove or replace. For "did you mean".
std::size_t edit_distance(std::string const& a, std::string const& b);
// The closest of `names` if it differs in less than half its characters, else "".
std::string nearest_name(std::string const& name, std::vector<std::string> const& names);

}  // namespace duoflow::model
