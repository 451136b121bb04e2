#pragma once
#include <cstddef>
#include <string>

namespace duoflow::model {

// Levenshtein: how many characters to insert, remove or replace. For "did you mean".
std::size_t edit_distance(std::string const& a, std::string const& b);

}  // namespace duoflow::model
