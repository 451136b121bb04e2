// A damaged or hostile file is a CheckpointError that names it; never a crash, a huge allocation or other tensors.

#include <cstring>

#include "dist/checkpoint/safetensors.h"
#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

std::string file_of(std::string const& json, std::string const& data) {
  std::uint64_t const length = json.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  return text + json + data;
}

class SafetensorsDamageTest : public ::testing::Test {
 protected:
  std::string error_of(std::string const& bytes) const {
    spill(path_, bytes);
    std::string const message = checkpoint_error([&] { read_safetensors(path_); });
    EXPECT_TRUE(message.empty() || contains(message, path_)) << message;
    return message;
  }
  std::string error_of_header(std::string const& json, std::size_t data_bytes) const {
    return error_of(file_of(json, std::string(data_bytes, '\0')));
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "a.safetensors";
};

TEST_F(SafetensorsDamageTest, MinimalFileIsRead) {
  EXPECT_EQ(error_of_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8), "");
  EXPECT_EQ(error_of_header("{}", 0), "");
}

TEST_F(SafetensorsDamageTest, MissingFileIsNamed) {
  EXPECT_TRUE(contains(checkpoint_error([&] { read_safetensors(path_); }), path_));
  EXPECT_TRUE(contains(checkpoint_error([&] { read_safetensors(folder_.path()); }), folder_.path()));
}

TEST_F(SafetensorsDamageTest, EveryTruncationIsAnError) {
  write_safetensors(path_, {{"a", counted(1, {5})}, {"b", counted(2, {3}, at::kBFloat16)}}, {{"format", "pt"}});
  std::string const whole = slurp(path_);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    ASSERT_NE(error_of(whole.substr(0, length)), "") << length;
  }
  EXPECT_TRUE(contains(error_of(whole + "x"), "ends at byte"));
  EXPECT_EQ(error_of(whole), "");
}

TEST_F(SafetensorsDamageTest, AFlippedByteNeverCrashesAndNeverChangesTheLayoutUnnoticed) {
  std::vector<NamedTensor> const tensors = {{"a", counted(1, {5})}, {"b", counted(2, {3}, at::kInt)}};
  auto const entries = write_safetensors(path_, tensors);
  std::string const whole = slurp(path_);
  for (std::size_t i = 0; i < entries[0].offset; ++i) {
    for (int const mask : {0x01, 0x20, 0x80, 0xff}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ mask);
      if (!error_of(damaged).empty()) continue;
      // What parses still covers all of the data with types of the right size: only names and equal-sized types can
      // differ.
      std::int64_t bytes = 0;
      for (NamedTensor const& named : read_safetensors(path_))
        bytes += static_cast<std::int64_t>(named.tensor.nbytes());
      ASSERT_EQ(bytes, 32) << i;
    }
  }
}

TEST_F(SafetensorsDamageTest, OffsetsMustTileTheData) {
  std::string const a = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  auto const with_b = [&](std::string const& offsets) {
    return "{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":)" + offsets + "}}";
  };
  EXPECT_EQ(error_of_header(with_b("[8,16]"), 16), "");
  EXPECT_TRUE(contains(error_of_header(with_b("[4,12]"), 12), "overlap"));
  EXPECT_TRUE(contains(error_of_header(with_b("[0,8]"), 8), "overlap"));
  EXPECT_TRUE(contains(error_of_header(with_b("[12,20]"), 20), "unnamed bytes"));
  EXPECT_TRUE(contains(error_of_header(with_b("[16,8]"), 16), "do not lie within"));
  EXPECT_TRUE(contains(error_of_header(with_b("[8,16]"), 15), "do not lie within"));
  EXPECT_TRUE(contains(error_of_header(with_b("[8,12]"), 12), "needs 8 bytes"));
  EXPECT_TRUE(contains(error_of_header(with_b("[-8,0]"), 16), "data_offsets"));
  EXPECT_TRUE(contains(error_of_header(with_b("[8,16,24]"), 24), "\"b\""));
}

TEST_F(SafetensorsDamageTest, HeaderGarbageIsAnError) {
  auto const tensor = [](std::string const& inner) { return "{\"a\":{" + inner + "}}"; };
  EXPECT_TRUE(contains(error_of_header("[]", 0), "not a JSON object"));
  EXPECT_TRUE(contains(error_of_header("", 0), "not JSON"));
  EXPECT_TRUE(contains(error_of_header("{\"a\":", 0), "not JSON"));
  EXPECT_TRUE(contains(error_of_header("{} x", 0), "not JSON"));
  EXPECT_NE(error_of_header("{\"a\":7}", 0), "");
  EXPECT_NE(error_of_header(tensor(R"("dtype":"F32","shape":[0])"), 0), "");
  EXPECT_NE(error_of_header(tensor(R"("dtype":7,"shape":[0],"data_offsets":[0,0])"), 0), "");
  EXPECT_NE(error_of_header(tensor(R"("dtype":"F32","shape":[-1],"data_offsets":[0,0])"), 0), "");
  EXPECT_NE(error_of_header(tensor(R"("dtype":"F32","shape":[0.5],"data_offsets":[0,0])"), 0), "");
  EXPECT_NE(error_of_header(tensor(R"("dtype":"F32","shape":"x","data_offsets":[0,0])"), 0), "");
  EXPECT_TRUE(contains(error_of_header(tensor(R"("dtype":"F8","shape":[0],"data_offsets":[0,0])"), 0), "\"F8\""));
  EXPECT_TRUE(contains(error_of_header(R"({"__metadata__":{"k":1}})", 0), "__metadata__"));
  EXPECT_TRUE(contains(error_of(std::string(8, '\xff') + "{}"), "header of"));
  EXPECT_TRUE(contains(error_of_header(std::string(100'000, '['), 0), "nested deeper than 32 levels"));
  EXPECT_NE(error_of_header("{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}", 0), "");
}

TEST_F(SafetensorsDamageTest, DuplicateKeysAreAnError) {
  std::string const a = R"("a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
  EXPECT_TRUE(contains(error_of_header("{" + a + "," + a + "}", 0), "\"a\" is given twice"));
  EXPECT_TRUE(
      contains(error_of_header(R"({"a":{"dtype":"F32","dtype":"F32","shape":[0],"data_offsets":[0,0]}})", 0), "twice"));
}

TEST_F(SafetensorsDamageTest, ShapesThatOverflowAreAnError) {
  auto const with_shape = [&](std::string const& shape) {
    return error_of_header(R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":[0,0]}})", 0);
  };
  EXPECT_TRUE(contains(with_shape("[4294967296,4294967296]"), "too large"));
  EXPECT_TRUE(contains(with_shape("[9223372036854775808]"), "too large"));
  EXPECT_NE(with_shape("[99999999999999999999999]"), "");
  EXPECT_EQ(with_shape("[4294967296,0,3]"), "");
  EXPECT_TRUE(contains(with_shape("[4294967296,0,4294967296]"), "too large"));  // LibTorch's strides would overflow
  EXPECT_TRUE(contains(with_shape("[4611686018427387904,8,0]"), "too large"));
  std::string ones = "0";
  for (int axis = 1; axis < 64; ++axis) ones += ",1";
  EXPECT_EQ(with_shape("[" + ones + "]"), "");
  EXPECT_TRUE(contains(with_shape("[" + ones + ",1]"), "65 axes"));
}

TEST_F(SafetensorsDamageTest, BooleansAreZeroOrOne) {
  std::string const json = R"({"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}})";
  EXPECT_EQ(error_of(file_of(json, std::string("\0\1\1", 3))), "");
  EXPECT_TRUE(contains(error_of(file_of(json, std::string("\0\1\2", 3))), "element 2 is 2"));
}

}  // namespace
}  // namespace duoflow::dist
