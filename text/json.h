#pragma once
// JSON of files that anyone may have written, and what messages may quote of them.

#include <algorithm>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace duoflow::text {

// What is no printable ASCII as '?'.
inline std::string printable(std::string words) {
  std::replace_if(
      words.begin(), words.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return words;
}

// Json: nlohmann::json, or ordered_json, which keeps a writer's order. Throws std::invalid_argument with the reason alone,
// printable: no JSON, a key of one object twice (nlohmann's own parser keeps the last one without a word), or nested deeper
// than 32 levels, which our files never are and which the library's recursive copying does not survive.
template <typename Json>
Json parse_json(std::string const& json) try {
  constexpr int kDeepestLevel = 32;
  std::vector<std::set<std::string>> keys;
  auto const watch = [&](int depth, typename Json::parse_event_t event, Json& value) {
    using Event = typename Json::parse_event_t;
    if (depth > kDeepestLevel) throw std::invalid_argument(fmt::format("it is nested deeper than {} levels", kDeepestLevel));
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.template get<std::string>()).second)
      throw std::invalid_argument(printable(fmt::format("its key \"{}\" is given twice", value.template get<std::string>())));
    return true;
  };
  return Json::parse(json, watch);
} catch (typename Json::exception const& error) {
  throw std::invalid_argument(printable(error.what()));  // it quotes what it stumbled over, which may be anything
}

}  // namespace duoflow::text
