#include "data/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <vector>

#include "data/error.h"

namespace duoflow::data {
namespace {

using Json = nlohmann::json;

constexpr int kDeepestLevel = 32;

// The parser quotes what it stumbled over, which may be anything.
std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

}  // namespace

Json parse_json(std::string const& text) try {
  std::vector<std::set<std::string>> keys;
  auto const watch = [&](int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    if (depth > kDeepestLevel) throw DataError(fmt::format("it is nested deeper than {} levels", kDeepestLevel));
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get<std::string>()).second)
      throw DataError(printable(fmt::format("its key \"{}\" is given twice", value.get<std::string>())));
    return true;
  };
  return Json::parse(text, watch);
} catch (Json::exception const& error) {
  throw DataError(printable(error.what()));
}

}  // namespace duoflow::data
