// Whatever happens to a checkpoint's files, it is noticed and named.

#include <set>

#include <fmt/format.h>

#include "dist/thread_backend.h"
#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

class DamageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    run_ranks(2, [&](Communicator const& communicator) {
      write_checkpoint(communicator, options_for(directory_.path()), small_state(4));
    });
  }
  // verify and read must both complain, about this file.
  std::string problem(std::string const& name) const {
    std::string const found = verify_checkpoint(folder_);
    EXPECT_TRUE(contains(found, name)) << found;
    EXPECT_TRUE(contains(checkpoint_error([&] { read_checkpoint(folder_); }), name));
    return found;
  }

  TemporaryFolder directory_;
  std::string folder_ = directory_ / "step_000000004";
};

TEST_F(DamageTest, EveryFlippedByteOfEveryFileIsNoticed) {
  for (std::string const& name : names_in(folder_)) {
    std::string const path = folder_ + "/" + name;
    std::string const whole = slurp(path);
    for (std::size_t i = 0; i < whole.size(); ++i) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
      spill(path, damaged);
      std::string const found = verify_checkpoint(folder_);
      ASSERT_TRUE(contains(found, name)) << name << " byte " << i << ": " << found;
    }
    spill(path, whole);
  }
  EXPECT_EQ(verify_checkpoint(folder_), "");
}

TEST_F(DamageTest, AFlippedDataByteNamesFileTensorExpectedAndFound) {
  std::set<std::string> named;
  for (std::string const& name : names_in(folder_)) {
    if (name == "manifest.json") continue;
    std::string const path = folder_ + "/" + name;
    for (TensorEntry const& entry : read_safetensors_header(path)) {
      if (entry.bytes == 0) continue;
      std::string const whole = slurp(path);
      std::string damaged = whole;
      damaged[entry.offset + entry.bytes - 1] ^= 0x10;
      spill(path, damaged);
      std::string const found = problem(name);
      EXPECT_TRUE(contains(found, fmt::format("tensor \"{}\" is altered, xxh3 expected ", entry.name))) << found;
      spill(path, whole);
      named.insert(entry.name);
    }
  }
  EXPECT_EQ(named.size(), 6u);
}

TEST_F(DamageTest, EveryTruncationIsNoticed) {
  for (std::string const& name : names_in(folder_)) {
    std::string const path = folder_ + "/" + name;
    std::string const whole = slurp(path);
    for (std::size_t length = 0; length < whole.size(); length += 1 + whole.size() / 23) {
      spill(path, whole.substr(0, length));
      ASSERT_TRUE(contains(problem(name), "cut short")) << length;
    }
    spill(path, whole + "x");
    EXPECT_NE(problem(name), "");
    spill(path, whole);
  }
}

TEST_F(DamageTest, AMissingFileIsNoticed) {
  for (std::string const& name : names_in(folder_)) {
    std::string const path = folder_ + "/" + name;
    std::string const whole = slurp(path);
    std::filesystem::remove(path);
    EXPECT_TRUE(contains(problem(name), "No such file"));
    spill(path, whole);
  }
}

TEST_F(DamageTest, AFileOfAnotherCheckpointIsNoticed) {
  TemporaryFolder const other;
  run_ranks(2, [&](Communicator const& communicator) {
    write_checkpoint(communicator, options_for(other.path()), small_state(5));
  });
  std::string const name = "model-00001-of-00002.safetensors";
  std::filesystem::copy_file(other / ("step_000000005/" + name), folder_ + "/" + name,
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(contains(problem(name), "is altered"));
}

TEST_F(DamageTest, SeveralDamagedFilesAreAllNamed) {
  spill(folder_ + "/model-00001-of-00002.safetensors", "");
  std::filesystem::remove(folder_ + "/state-00001-of-00002.safetensors");
  EXPECT_TRUE(contains(verify_checkpoint(folder_), "model-00001"));
  EXPECT_TRUE(contains(verify_checkpoint(folder_), "state-00001"));
}

TEST_F(DamageTest, DamagedStateDoesNotKeepTheModelFromBeingRead) {
  std::filesystem::remove(folder_ + "/state-00001-of-00002.safetensors");
  expect_equal(read_checkpoint_model(folder_), small_state(4).model);
}

}  // namespace
}  // namespace duoflow::dist
