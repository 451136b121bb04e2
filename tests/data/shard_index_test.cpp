#include "data/shards/shard_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "data/shards/shard_writer.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

class ShardIndexTest : public ::testing::Test {
 protected:
  ShardIndexTest() {
    write_pair_shard(folder / "p0.h5", {});
    write_pair_shard(folder / "p1.h5", {.salt = 2});
    write_manifest(folder.path(), ShardKind::pair, {"p0.h5", "p1.h5"});
  }
  std::string error() const {
    return data_error_of([&] { ShardIndex const index(folder.path()); });
  }
  TemporaryFolder folder;
};

TEST_F(ShardIndexTest, SaysWhatTheFolderHolds) {
  ShardIndex const index(folder.path());
  EXPECT_EQ(index.kind(), ShardKind::pair);
  ASSERT_EQ(index.shards().size(), 2U);
  auto const& shard = index.shards()[1];
  EXPECT_EQ(shard.file, "p1.h5");
  EXPECT_EQ(shard.bytes, std::filesystem::file_size(folder / "p1.h5"));
  auto const& latents = shard.datasets.at("latents");
  EXPECT_EQ(latents.spec.dtype, DType::bf16);
  EXPECT_EQ(latents.spec.shape, (std::vector<std::int64_t>{4, 3, 2}));
  EXPECT_EQ(latents.row_xxh3.size(), 4U);
  EXPECT_EQ(shard.attributes.note, "made for a test");
  EXPECT_EQ(index.fingerprint().size(), 16U);
}

TEST_F(ShardIndexTest, TheFingerprintFollowsTheData) {
  auto const before = ShardIndex(folder.path()).fingerprint();
  write_pair_shard(folder / "p1.h5", {.salt = 3});
  write_manifest(folder.path(), ShardKind::pair, {"p0.h5", "p1.h5"});
  EXPECT_NE(ShardIndex(folder.path()).fingerprint(), before);
}

TEST_F(ShardIndexTest, AMissingManifestIsNamed) {
  std::filesystem::remove(folder / "manifest.json");
  EXPECT_TRUE(says(error(), {folder.path(), "manifest.json"}));
}

TEST_F(ShardIndexTest, NoAlteredByteOfTheManifestPasses) {
  auto const text = file_bytes(folder / "manifest.json");
  std::size_t const last = text.size() - 1;  // the line end carries nothing
  for (std::size_t at = 0; at < last; at += 61) {
    auto hurt = text;
    hurt[at] = static_cast<char>(hurt[at] ^ 1);
    put_bytes(folder / "manifest.json", hurt);
    EXPECT_TRUE(says(error(), {"manifest.json"})) << "byte " << at;
    hurt[at] = static_cast<char>(text[at] ^ 0x80);  // no UTF-8 any more: the message is
    put_bytes(folder / "manifest.json", hurt);
    auto const said = error();
    EXPECT_TRUE(std::all_of(said.begin(), said.end(), [](char c) { return c >= ' ' && c <= '~'; })) << "byte " << at;
  }
}

TEST_F(ShardIndexTest, AManifestCutShortIsNamed) {
  auto const text = file_bytes(folder / "manifest.json");
  for (auto const bytes : {std::size_t{0}, text.size() / 2, text.size() - 2}) {
    put_bytes(folder / "manifest.json", text.substr(0, bytes));
    EXPECT_TRUE(says(error(), {"manifest.json"}));
  }
}

TEST_F(ShardIndexTest, ANewerSchemaIsRefusedAsSuch) {
  auto text = file_bytes(folder / "manifest.json");
  std::string const key = "\"schema_version\":1";
  text.replace(text.find(key), key.size(), "\"schema_version\":2");
  put_bytes(folder / "manifest.json", text);
  EXPECT_TRUE(says(error(), {"manifest.json", "schema version 2", "up to 1"}));
}

TEST_F(ShardIndexTest, AMissingShardIsNamed) {
  std::filesystem::remove(folder / "p1.h5");
  EXPECT_TRUE(says(error(), {"p1.h5", "missing"}));
}

TEST_F(ShardIndexTest, AShardCutShortIsNamedWithBothSizes) {
  auto const bytes = std::filesystem::file_size(folder / "p0.h5");
  std::filesystem::resize_file(folder / "p0.h5", bytes - 1);
  EXPECT_TRUE(says(error(), {"p0.h5", std::to_string(bytes), std::to_string(bytes - 1)}));
}

// An intact manifest that says what cannot be: nothing of it is believed.
TEST_F(ShardIndexTest, AManifestThatMakesNoSenseIsRefused) {
  auto const text = file_bytes(folder / "manifest.json");
  auto const offset = fmt::format("\"offset\":{},", ShardIndex(folder.path()).shards()[0].datasets.at("env").offset);
  struct Case {
    std::string from, to;
    std::vector<std::string> words;
  };
  std::vector<Case> const cases = {
      {"\"file\":\"p1.h5\"", "\"file\":\"../p1.h5\"", {"../p1.h5", "not the name of a file in the folder"}},
      {"\"file\":\"p1.h5\"", "\"file\":\"/etc/passwd\"", {"/etc/passwd", "not the name of a file in the folder"}},
      {"\"file\":\"p1.h5\"", "\"file\":\"..\"", {"not the name of a file in the folder"}},
      {"\"file\":\"p1.h5\"", "\"file\":\"\"", {"not the name of a file in the folder"}},
      {"\"file\":\"p1.h5\"", "\"file\":\"p0.h5\"", {"p0.h5", "listed twice"}},
      {"\"file\":\"p1.h5\"", "\"file\":\"p1.h5\",\"file\":\"p0.h5\"", {"given twice"}},
      {offset, "\"offset\":9000000000000000000,", {"an offset", "9000000000000000000"}},
      {offset, "\"offset\":18446744073709551615,", {"an offset", "18446744073709551615"}},
      {offset, "\"offset\":4611686018427387904,", {"p0.h5", "env", "would not lie in the file"}},
      {offset, "\"offset\":-1,", {"an offset", "-1"}},
      {offset, "\"offset\":0.5,", {"an offset", "0.5"}},
      {offset, "\"offset\":null,", {"an offset", "null"}},
      {"\"shape\":[4,3,2]", "\"shape\":[4,3,4611686018427387904]", {"latents", "senseless shape"}},
      {"\"shape\":[4,3,2]", "\"shape\":[4,2305843009213693952,2]", {"latents", "senseless shape"}},
      {"\"shape\":[4,3,2]", "\"shape\":[4,0,2]", {"latents", "senseless shape"}},
      {"\"shape\":[4,3,2]", "\"shape\":[4,-3,2]", {"a size of a shape", "-3"}},
      {"\"shape\":[4,3,2]", "\"shape\":[4,3,true]", {"a size of a shape", "true"}},
      {"\"shape\":[4,3,2]", "\"shape\":[]", {"latents", "no shape"}},
      {"\"shape\":[4,3,2]", "\"shape\":[4000000000000,3,2]", {"latents", "4 row hashes for 4000000000000 rows"}},
      {"\"shape\":[4,3,2]", "\"shape\":[4,3,2000000]", {"p0.h5", "dataset latents", "would not lie in the file"}},
      {"\"shape\":[4,3,2]", "\"shape\":[4,3,64]", {"p0.h5", "latents", "would share bytes"}},
      {"\"dtype\":\"bf16\"", "\"dtype\":\"f8\"", {"unknown number type", "f8"}},
      {"\"raw\":true", "\"raw\":1", {"cannot be understood"}},
      {"\"row_xxh3\":[\"", "\"row_xxh3\":77,\"row_y\":[\"", {"the number 77 for its row_xxh3"}},
      {"\"schema_version\":1", "\"schema_version\":1e+300", {"schema_version is 1e+300"}},
      {"\"latent_mean\":[1.0", "\"latent_mean\":[1e+39", {"p0.h5", "not finite"}},
      {"\"note\":\"made for a test\"", "\"note\":" + std::string(1000, '[') + std::string(1000, ']'), {"nested deeper than 32 levels"}},
      {"\"row_xxh3\":[\"", "\"row_xxh3\":[\"g", {"hash"}},
      {"\"row_xxh3\":[\"", "\"row_xxh3\":[\"", {}},
      {"\"kind\":\"pair\"", "\"kind\":\"pairs\"", {"unknown kind", "pairs"}}};
  for (auto const& c : cases) {
    auto changed = text;
    auto const at = changed.find(c.from);
    ASSERT_NE(at, std::string::npos) << c.from;
    changed.replace(at, c.from.size(), c.to);
    put_bytes(folder / "manifest.json", rehashed(changed));
    if (c.words.empty()) {
      EXPECT_NO_THROW(ShardIndex(folder.path())) << "the check itself";
      continue;
    }
    auto const said = error();
    EXPECT_TRUE(says(said, {folder.path()})) << c.to;
    EXPECT_TRUE(says(said, c.words)) << c.to;
  }
}

// Another tool may have written the same JSON with spaces.
TEST_F(ShardIndexTest, TheFormOfTheTextDoesNotMatter) {
  auto const fingerprint = ShardIndex(folder.path()).fingerprint();
  auto text = file_bytes(folder / "manifest.json");
  for (std::string const sign : {",\"", ":"})
    for (std::size_t at = 0; (at = text.find(sign, at)) != std::string::npos; at += 3) text.replace(at, 1, sign.substr(0, 1) + "\n ");
  put_bytes(folder / "manifest.json", text);
  EXPECT_EQ(ShardIndex(folder.path()).fingerprint(), fingerprint);
}

TEST_F(ShardIndexTest, AShardWrittenAnewBehindTheManifestIsFoundAtOpen) {
  auto const size = std::filesystem::file_size(folder / "p1.h5");
  write_pair_shard(folder / "p1.h5", {.salt = 2, .producer = "producer-b"});  // another attribute, the same rows
  ASSERT_EQ(std::filesystem::file_size(folder / "p1.h5"), size);
  ShardIndex const index(folder.path());
  EXPECT_TRUE(says(data_error_of([&] { load_pairs(index); }), {"p1.h5", "altered outside its rows", "written anew after the manifest"}));
}

}  // namespace
}  // namespace duoflow::data::testing
