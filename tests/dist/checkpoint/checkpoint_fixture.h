#pragma once
// Small checkpoints in a folder of their own, for the tests of this folder.

#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/checkpoint/checkpoint.h"
#include "dist/checkpoint/file_io.h"
#include "dist/error.h"

namespace duoflow::dist {

class TemporaryFolder {
 public:
  // In memory where the system offers that: these tests sync thousands of times and would wait for a disk.
  TemporaryFolder()
      : path_((::access("/dev/shm", W_OK) == 0 ? "/dev/shm/" : ::testing::TempDir()) + "duoflow_test_XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("no temporary folder: " + path_);
  }
  ~TemporaryFolder() { EXPECT_NO_THROW(remove_tree(path_)); }
  TemporaryFolder(TemporaryFolder const&) = delete;
  std::string operator/(std::string const& name) const { return path_ + "/" + name; }
  std::string const& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string slurp(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void spill(std::string const& path, std::string const& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

inline std::vector<std::string> names_in(std::string const& folder) { return list_folder(folder); }

// Element i of tensor k is 1000 k + i + offset.
inline at::Tensor counted(int k, std::vector<std::int64_t> const& shape, at::ScalarType type = at::kFloat,
                          std::int64_t offset = 0) {
  std::int64_t numel = 1;
  for (std::int64_t const size : shape) numel *= size;
  return (at::arange(numel, at::kDouble) + static_cast<double>(1000 * k + offset)).to(type).view(shape);
}

inline void expect_equal(std::vector<NamedTensor> const& found, std::vector<NamedTensor> const& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].name, expected[i].name);
    EXPECT_EQ(found[i].tensor.scalar_type(), expected[i].tensor.scalar_type()) << expected[i].name;
    EXPECT_TRUE(at::equal(found[i].tensor, expected[i].tensor.cpu())) << expected[i].name;
  }
}

// Sizes 0, 1 and ones that no world size divides; other numbers for every step.
inline CheckpointState small_state(std::int64_t step) {
  CheckpointState state;
  state.step = step;
  state.model = {{"zeta.weight", counted(1, {3, 5}, at::kFloat, step)},
                 {"alpha.weight", counted(2, {7}, at::kFloat, step)},
                 {"empty", counted(3, {0, 4})},
                 {"scalar", counted(4, {}, at::kFloat, step)},
                 {"half", counted(5, {2, 3}, at::kBFloat16, step)}};
  state.state = {{"exp_avg", counted(6, {29}, at::kFloat, step)}, {"update_count", counted(7, {}, at::kFloat, step)}};
  state.counters_json = R"({"step":)" + std::to_string(step) + R"(,"rate":0.1,"big":18446744073709551615,"none":null})";
  state.config_yaml = "objective: joint  # \"quoted\"\nname: \xc3\xa4\n";
  return state;
}

inline void expect_equal(CheckpointState const& found, CheckpointState const& expected) {
  EXPECT_EQ(found.step, expected.step);
  EXPECT_EQ(found.counters_json, expected.counters_json);
  EXPECT_EQ(found.config_yaml, expected.config_yaml);
  expect_equal(found.model, expected.model);
  expect_equal(found.state, expected.state);
}

inline CheckpointWriterOptions options_for(std::string const& directory) {
  CheckpointWriterOptions options;
  options.directory = directory;
  return options;
}

inline std::string write_alone(std::string const& directory, std::int64_t step) {
  return write_checkpoint(Communicator(), options_for(directory), small_state(step));
}

// The message of the CheckpointError that body throws; "" if it throws none.
template <typename Body>
std::string checkpoint_error(Body const& body) {
  try {
    body();
  } catch (CheckpointError const& error) {
    return error.what();
  }
  return "";
}

inline bool contains(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

}  // namespace duoflow::dist
