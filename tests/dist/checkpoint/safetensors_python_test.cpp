// The format's own library and ours read each other's files.

#include <stdio.h>
#include <sys/wait.h>

#include <fmt/format.h>

#include "dist/checkpoint/safetensors.h"
#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

std::string const python = DUOFLOW_SOURCE_DIR "/.venv/bin/python";

struct Outcome {
  int status = 0;
  std::string output;
};

// No tensor library is imported: BF16 travels as raw bytes, which keeps the test fast and its needs small.
Outcome run_python(TemporaryFolder const& folder, std::string const& script) {
  spill(folder / "script.py", script);
  std::string const command = fmt::format("'{}' '{}' '{}' 2>&1", python, folder / "script.py", folder.path());
  Outcome outcome;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return {-1, "popen failed"};
  char buffer[4096];
  while (std::size_t const count = ::fread(buffer, 1, sizeof buffer, pipe)) outcome.output.append(buffer, count);
  outcome.status = WEXITSTATUS(::pclose(pipe));
  return outcome;
}

bool python_has_safetensors() {
  static bool const found = [] {
    TemporaryFolder const folder;
    return std::filesystem::exists(python) && run_python(folder, "import safetensors, numpy").status == 0;
  }();
  return found;
}

class SafetensorsPythonTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!python_has_safetensors()) GTEST_SKIP() << python << " with safetensors and numpy is not installed";
  }
  TemporaryFolder folder_;
};

TEST_F(SafetensorsPythonTest, PythonReadsWhatWeWrote) {
  write_safetensors(folder_ / "a.safetensors",
                    {{"f32", counted(1, {2, 3})},
                     {"f16", counted(0, {3}, at::kHalf)},
                     {"f64", counted(2, {2}, at::kDouble)},
                     {"i64", counted(3, {4}, at::kLong)},
                     {"i32", counted(4, {3}, at::kInt)},
                     {"u8", counted(0, {7}, at::kByte)},
                     {"bool", at::tensor({1, 0, 1}, at::kByte).to(at::kBool)},
                     {"empty", counted(5, {0, 2})},
                     {"scalar", counted(6, {})}},
                    {{"format", "pt"}});
  write_safetensors(folder_ / "none.safetensors", {});
  auto const outcome = run_python(folder_, R"(
import sys, numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file
d = sys.argv[1]
t = load_file(d + "/a.safetensors")
def same(name, dtype, values, shape):
    assert t[name].dtype == dtype and t[name].shape == shape, (name, t[name].dtype, t[name].shape)
    assert t[name].ravel().tolist() == values, (name, t[name])
same("f32", np.float32, [1000., 1001., 1002., 1003., 1004., 1005.], (2, 3))
same("f16", np.float16, [0., 1., 2.], (3,))
same("f64", np.float64, [2000., 2001.], (2,))
same("i64", np.int64, [3000, 3001, 3002, 3003], (4,))
same("i32", np.int32, [4000, 4001, 4002], (3,))
same("u8", np.uint8, list(range(7)), (7,))
same("bool", np.bool_, [True, False, True], (3,))
same("empty", np.float32, [], (0, 2))
same("scalar", np.float32, [6000.], ())
assert len(t) == 9
with safe_open(d + "/a.safetensors", "np") as f:
    assert f.metadata() == {"format": "pt"}
assert load_file(d + "/none.safetensors") == {}
)");
  EXPECT_EQ(outcome.status, 0) << outcome.output;
}

TEST_F(SafetensorsPythonTest, WeReadWhatPythonWrote) {
  auto const outcome = run_python(folder_, R"(
import sys, numpy as np
from safetensors import serialize_file
from safetensors.numpy import save_file
d = sys.argv[1]
save_file({"f32": np.arange(6, dtype=np.float32).reshape(2, 3) + 1000, "i64": np.arange(4) + 3000,
           "bool": np.array([True, False]), "empty": np.zeros((0, 2), np.float32), "scalar": np.array(7, np.int32),
           "f16": np.arange(3).astype(np.float16), "f64": np.arange(2) / 4}, d + "/b.safetensors", metadata={"k": "v"})
)");
  ASSERT_EQ(outcome.status, 0) << outcome.output;
  std::map<std::string, std::string> metadata;
  std::map<std::string, at::Tensor> found;
  for (auto const& [name, tensor] : read_safetensors(folder_ / "b.safetensors", &metadata)) found[name] = tensor;
  EXPECT_EQ(found.size(), 7u);
  EXPECT_EQ(metadata, (std::map<std::string, std::string>{{"k", "v"}}));
  EXPECT_TRUE(at::equal(found.at("f32"), counted(1, {2, 3})));
  EXPECT_TRUE(at::equal(found.at("i64"), counted(3, {4}, at::kLong)));
  EXPECT_TRUE(at::equal(found.at("bool"), at::tensor({1, 0}, at::kByte).to(at::kBool)));
  EXPECT_TRUE(at::equal(found.at("empty"), counted(0, {0, 2})));
  EXPECT_TRUE(at::equal(found.at("scalar"), at::scalar_tensor(7, at::kInt)));
  EXPECT_TRUE(at::equal(found.at("f16"), counted(0, {3}, at::kHalf)));
  EXPECT_TRUE(at::equal(found.at("f64"), at::tensor({0., .25}, at::kDouble)));
}

TEST_F(SafetensorsPythonTest, BfloatBytesAgreeBothWays) {
  auto const values = at::tensor({1.f, -2.5f, 0.f}).to(at::kBFloat16);
  write_safetensors(folder_ / "a.safetensors", {{"x", values}});
  auto const outcome = run_python(folder_, R"(
import sys
from safetensors import deserialize, serialize_file
d = sys.argv[1]
(name, t), = deserialize(open(d + "/a.safetensors", "rb").read())
assert name == "x" and t["dtype"] == "BF16" and list(t["shape"]) == [3], (name, t)
assert bytes(t["data"]) == bytes([0x80, 0x3f, 0x20, 0xc0, 0, 0]), t
head = b'{"y":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}'
open(d + "/b.safetensors", "wb").write(len(head).to_bytes(8, "little") + head + bytes(t["data"]))
deserialize(open(d + "/b.safetensors", "rb").read())
)");
  ASSERT_EQ(outcome.status, 0) << outcome.output;
  EXPECT_TRUE(at::equal(read_safetensors(folder_ / "b.safetensors")[0].tensor, values));
}

}  // namespace
}  // namespace duoflow::dist
