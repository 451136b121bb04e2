// A configuration's YAML, up to the list of its values.

#include "launch/config.h"
#include "launch/config_leaves.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

bool read_config_yaml(std::string const& input) {
  return read_or_refused<launch::ConfigError>([&] { launch::read_leaves(input, "in"); });
}

std::vector<std::string> config_yaml_seeds() {
  return {"training:\n  lr: 1e-3  # comment\n  skip: [1, 2]\nmodel: {transformer: {d: 64}}\nobjective: \"joint\"\n",
          "a: &a {x: 1, y: &b [1, 2]}\nb: {p: *a, q: *a}\nc: *b\n",
          "a: &a\n  x: *a\n",
          "a: &a {x: 1, y: 2}\nb: &b {x: *a, y: *a}\nc: &c {x: *b, y: *b}\nd: {x: *c, y: *c}\n",
          "a: !!binary aGk=\n? [k, e]\n: v\n--- \n- x\n",
          "a: 'x\n",
          "a: |\n  text\n  more\nb: >-\n  folded\n",
          std::string(200, '{'),
          std::string(100, '['),
          "%YAML 1.2\n---\na: ~\n",
          "a: 1\na: 2\n"};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(config_yaml, duoflow::fuzz::read_config_yaml, duoflow::fuzz::config_yaml_seeds);
