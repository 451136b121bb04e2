#pragma once
// JSON of files that anyone may have written.

#include <string>

#include <nlohmann/json.hpp>

namespace duoflow::dist {

// Throws std::exception: no JSON, a key of one object twice (nlohmann's own parser keeps the last one without a word),
// or nested deeper than 32 levels, which our files never are and which the library's recursive copying does not
// survive.
nlohmann::ordered_json parse_json(std::string const& text);

std::string printable(std::string text);  // for messages: what is no printable ASCII as '?'

}  // namespace duoflow::dist
