#include "data/shard_index.h"

#include <fmt/format.h>

#include <filesystem>

#include "data/shard_writer.h"
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

}  // namespace
}  // namespace duoflow::data::testing
