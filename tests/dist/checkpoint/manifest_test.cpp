#include "dist/checkpoint/manifest.h"

#include "dist/checkpoint/xxh3.h"
#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

std::string const hash = "0123456789abcdef";

Manifest small_manifest() {
  Manifest manifest;
  manifest.step = 12;
  manifest.world_size = 2;
  manifest.duoflow_version = "1.2.3";
  manifest.counters = nlohmann::ordered_json::parse(R"({"z":1,"a":[0.1]})");
  manifest.config_yaml = "a: 1\n";
  manifest.files = {{"m.safetensors", hash, 80}};
  TensorEntry entry;
  entry.name = "w";
  entry.dtype = "F32";
  entry.shape = {2, 2};
  entry.offset = 64;
  entry.bytes = 16;
  entry.xxh3 = hash;
  manifest.tensors = {{"model", "m.safetensors", entry}};
  return manifest;
}

// The text after one replacement, with an own hash that fits it again: damage that the hash does not reveal.
std::string edited(std::string const& from, std::string const& to) {
  std::string text = manifest_text(small_manifest());
  auto const position = text.find(from);
  if (position == std::string::npos) throw std::runtime_error("not in the manifest: " + from);
  text.replace(position, from.size(), to);
  std::string const key = "\"manifest_xxh3\": \"";
  auto const own = text.find(key) + key.size();
  text.replace(own, 16, std::string(16, '0'));
  return text.replace(own, 16, xxh3_of(text));
}

std::string error_of(std::string const& text) {
  return checkpoint_error([&] { parse_manifest(text, "M/manifest.json"); });
}

TEST(ManifestTest, ComesBack) {
  auto const found = parse_manifest(manifest_text(small_manifest()), "m");
  EXPECT_EQ(found.step, 12);
  EXPECT_EQ(found.world_size, 2);
  EXPECT_EQ(found.duoflow_version, "1.2.3");
  EXPECT_EQ(found.counters.dump(), R"({"z":1,"a":[0.1]})");
  EXPECT_EQ(found.config_yaml, "a: 1\n");
  ASSERT_EQ(found.files.size(), 1u);
  EXPECT_EQ(found.files[0].bytes, 80u);
  ASSERT_EQ(found.tensors.size(), 1u);
  EXPECT_EQ(found.tensors[0].part, "model");
  EXPECT_EQ(found.tensors[0].entry.shape, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(found.tensors[0].entry.xxh3, hash);
}

TEST(ManifestTest, OwnHashIsOverTheTextWithZerosInItsPlace) {
  std::string text = manifest_text(small_manifest());
  auto const position = text.find(": \"") + 3;
  std::string const own = text.substr(position, 16);
  EXPECT_EQ(own, xxh3_of(text.replace(position, 16, std::string(16, '0'))));
}

TEST(ManifestTest, EveryTruncationAndEveryFlippedByteIsAnError) {
  std::string const whole = manifest_text(small_manifest());
  for (std::size_t i = 0; i < whole.size(); ++i) {
    ASSERT_TRUE(contains(error_of(whole.substr(0, i)), "M/manifest.json")) << i;
    for (int const mask : {0x01, 0x20, 0x80}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ mask);
      ASSERT_NE(error_of(damaged), "") << i;
    }
  }
  EXPECT_NE(error_of(whole + " "), "");
  EXPECT_EQ(error_of(whole), "");
}

TEST(ManifestTest, ANewerFormatIsRefusedAsSuch) {
  auto const message = error_of(edited("\"format_version\": 1", "\"format_version\": 2"));
  EXPECT_TRUE(contains(message, "format 2 is newer than 1")) << message;
}

TEST(ManifestTest, AMissingHashIsAnErrorEvenIfTheOwnHashFits) {
  std::string const files_hash = ",\n   \"xxh3\": \"" + hash + "\"";
  EXPECT_TRUE(contains(error_of(edited(files_hash, "")), "xxh3"));
  EXPECT_TRUE(contains(error_of(edited(hash, "")), "not an xxh3"));
  EXPECT_NE(error_of(edited("\"" + hash + "\"", "null")), "");
  EXPECT_TRUE(contains(error_of("{\"format\": \"duoflow-checkpoint\", \"format_version\": 1}"), "own hash is missing"));
}

TEST(ManifestTest, InconsistentListsAreErrors) {
  EXPECT_TRUE(
      contains(error_of(edited("\"name\": \"m.safetensors\"", "\"name\": \"../m.safetensors\"")), "no plain name"));
  EXPECT_TRUE(contains(error_of(edited("\"file\": \"m.safetensors\"", "\"file\": \"n.safetensors\"")), "unlisted"));
  EXPECT_TRUE(contains(error_of(edited("\"part\": \"model\"", "\"part\": \"other\"")), "other"));
  EXPECT_NE(error_of(edited("\"step\": 12", "\"stop\": 12")), "");
  EXPECT_NE(error_of(edited("duoflow-checkpoint", "another")), "");
}

TEST(ManifestTest, NamesThatAreNoFileOfTheFolderAreErrors) {
  for (std::string const name : {"", ".", "..", "/etc/passwd", "a/b", "m\\u0000.safetensors", "m\\n"}) {
    EXPECT_TRUE(
        contains(error_of(edited("\"name\": \"m.safetensors\"", "\"name\": \"" + name + "\"")), "no plain name"))
        << name;
  }
}

// A cast would make some number of each.
TEST(ManifestTest, CountsThatAreNoneAreErrors) {
  for (std::string const value : {"-1", "1.5", "1e300", "9223372036854775808", "null", "\"12\"", "[]"}) {
    EXPECT_NE(error_of(edited("\"step\": 12", "\"step\": " + value)), "") << value;
    EXPECT_NE(error_of(edited("\"world_size\": 2", "\"world_size\": " + value)), "") << value;
    EXPECT_NE(error_of(edited("\"bytes\": 80", "\"bytes\": " + value)), "") << value;
    EXPECT_NE(error_of(edited("\"bytes\": 16", "\"bytes\": " + value)), "") << value;
    EXPECT_NE(error_of(edited("\"offset\": 64", "\"offset\": " + value)), "") << value;
    EXPECT_NE(error_of(edited("    2,\n", "    " + value + ",\n")), "") << value;
  }
  EXPECT_TRUE(contains(error_of(edited("\"world_size\": 2", "\"world_size\": 0")), "world_size is 0"));
}

TEST(ManifestTest, AKeyGivenTwiceAndEndlessNestingAreErrors) {
  EXPECT_TRUE(contains(error_of(edited("\"step\": 12", "\"step\": 12, \"step\": 13")), "\"step\" is given twice"));
  EXPECT_TRUE(contains(error_of(edited("\"z\": 1", "\"z\": " + std::string(100'000, '[') + std::string(100'000, ']'))),
                       "nested deeper"));
  EXPECT_TRUE(contains(error_of(edited("\"counters\": {", "\"counters\": 7, \"c\": {")), "counters is no object"));
}

}  // namespace
}  // namespace duoflow::dist
