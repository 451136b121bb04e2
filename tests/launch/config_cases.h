#pragma once
// What the tests of the configuration share.

#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "launch/config.h"

namespace duoflow::launch {

inline std::string const kFlow = "model.transformer.editor.flow_matching.";

inline Config parse(std::string const& yaml, std::vector<std::string> const& overrides = {}) {
  return parse_config(yaml, "F.yaml", overrides);
}

inline std::string error_of(std::string const& yaml, std::vector<std::string> const& overrides = {}) {
  try {
    parse(yaml, overrides);
  } catch (ConfigError const& error) {
    return error.what();
  }
  return "no error";
}

inline void expect_error(std::vector<std::string> const& parts, std::string const& yaml,
                         std::vector<std::string> const& overrides = {}) {
  auto const message = error_of(yaml, overrides);
  for (auto const& part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << "\"" << part << "\" is not in: " << message;
}

inline void expect_note(Config const& config, std::string const& part) {
  std::string all;
  for (auto const& note : config.notes) all += note + "\n";
  EXPECT_NE(all.find(part), std::string::npos) << "\"" << part << "\" is not in: " << all;
}

inline std::map<std::string, std::string> values_of(Config config) {
  std::map<std::string, std::string> values;
  for (auto const& key : config_keys(config)) values[key.name] = key.get();
  return values;
}

}  // namespace duoflow::launch
