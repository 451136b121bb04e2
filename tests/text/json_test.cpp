#include "text/json.h"

#include <gtest/gtest.h>

namespace duoflow::text {
namespace {

using Json = nlohmann::json;
using Ordered = nlohmann::ordered_json;

std::string reason(std::string const& json) {
  try {
    parse_json<Json>(json);
  } catch (std::invalid_argument const& error) {
    return error.what();
  }
  return "none";
}

TEST(JsonTest, ValuesAreNlohmannsAndAnOrderIsKeptIfAskedFor) {
  EXPECT_EQ(parse_json<Json>(R"({"b": [1, 2.5, null], "a": "x"})"), (Json{{"a", "x"}, {"b", {1, 2.5, nullptr}}}));
  EXPECT_EQ(parse_json<Ordered>(R"({"b": 1, "a": 2})").dump(), R"({"b":1,"a":2})");
}

TEST(JsonTest, AKeyOfOneObjectTwiceIsRefusedAndOfTwoObjectsIsNot) {
  EXPECT_EQ(reason(R"({"a": 1, "b": {"a": 2}})"), "none");
  EXPECT_EQ(reason(R"([{"a": 1}, {"a": 2}])"), "none");
  EXPECT_EQ(reason(R"({"a": 1, "b": {}, "a": 1})"), "its key \"a\" is given twice");
}

TEST(JsonTest, ThirtyTwoLevelsAreTakenAndOneMoreIsNot) {
  auto const nested = [](std::size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); };
  EXPECT_EQ(reason(nested(32)), "none");
  EXPECT_EQ(reason(nested(34)), "it is nested deeper than 32 levels");
  EXPECT_EQ(reason(std::string(100'000, '[')), "it is nested deeper than 32 levels");
}

TEST(JsonTest, WhatIsNoJsonIsRefusedInPrintableWords) {
  EXPECT_NE(reason(""), "none");
  auto const words = reason("{\"a\": \x01\xff}");
  EXPECT_NE(words.find("parse error"), std::string::npos) << words;
  for (char const c : words) EXPECT_TRUE(c >= ' ' && c <= '~') << words;
  EXPECT_EQ(printable("a\nb\x7f"), "a?b?");
}

}  // namespace
}  // namespace duoflow::text
