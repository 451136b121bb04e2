#include "dist/checkpoint/json_text.h"

#include <algorithm>
#include <set>
#include <stdexcept>
#include <vector>

#include <fmt/format.h>

namespace duoflow::dist {
namespace {

using Json = nlohmann::ordered_json;  // a writer's order is kept

constexpr int deepest_level = 32;

}  // namespace

Json parse_json(std::string const& text) {
  std::vector<std::set<std::string>> keys;
  auto const watch = [&](int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    if (depth > deepest_level) throw std::invalid_argument(fmt::format("nested deeper than {} levels", deepest_level));
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get<std::string>()).second) {
      throw std::invalid_argument(fmt::format("\"{}\" is there twice", value.get<std::string>()));
    }
    return true;
  };
  return Json::parse(text, watch);
}

std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

}  // namespace duoflow::dist
