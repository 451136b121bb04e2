#include "data/shards/shard_writer.h"

#include <fmt/format.h>

#include <filesystem>
#include <limits>
#include <memory>

#include "data/shards/raw_reader.h"
#include "data/shards/shard_receipt.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

TEST(ShardWriterTest, EveryTypeReadsBackTheBytesWritten) {
  for (auto const dtype : {DType::u8, DType::i64, DType::f16, DType::bf16, DType::f32}) {
    TemporaryFolder const folder;
    DatasetSpec const spec{"values", dtype, {5, 3, 2}};
    std::vector<std::uint8_t> bytes(5 * spec.row_bytes());
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = sample_byte(1, i);
    ShardWriter writer(folder / "a.h5", ShardKind::scene, {spec}, {});
    writer.write("values", 3, 2, bytes.data() + 3 * spec.row_bytes());
    writer.write("values", 0, 3, bytes.data());
    writer.close();
    write_manifest(folder.path(), ShardKind::scene, {"a.h5"});
    RawReader const reader(std::make_shared<ShardIndex const>(folder.path()));
    std::vector<std::uint8_t> found(bytes.size());
    for (std::int64_t row = 0; row < 5; ++row)
      reader.read(0, "values", row, found.data() + static_cast<std::size_t>(row) * spec.row_bytes());
    EXPECT_EQ(found, bytes) << to_string(dtype);
  }
}

TEST(ShardWriterTest, SameInputGivesTheSameBytes) {
  TemporaryFolder const one, two;
  for (auto const* folder : {&one, &two}) {
    write_pair_shard(*folder / "p.h5", {});
    write_manifest(folder->path(), ShardKind::pair, {"p.h5"});
  }
  EXPECT_EQ(file_bytes(one / "p.h5"), file_bytes(two / "p.h5"));
  EXPECT_EQ(file_bytes(one / "manifest.json"), file_bytes(two / "manifest.json"));
}

TEST(ShardWriterTest, LargeDatasetsStartAtAPageBoundary) {
  TemporaryFolder const folder;
  PairShard shard;
  shard.height = shard.width = 64;
  write_pair_shard(folder / "p.h5", shard);
  write_manifest(folder.path(), ShardKind::pair, {"p.h5"});
  ShardIndex const index(folder.path());
  auto const& images = index.shards()[0].datasets.at("target_images");
  EXPECT_TRUE(images.raw);
  EXPECT_EQ(images.offset % 4096, 0U);
  for (auto const& [name, dataset] : index.shards()[0].datasets) EXPECT_TRUE(dataset.raw) << name;
}

TEST(ShardWriterTest, OneDestroyedEarlyLeavesNothing) {
  TemporaryFolder const folder;
  {
    ShardWriter writer(folder / "a.h5", ShardKind::scene, {{"values", DType::u8, {2}}}, {});
    std::uint8_t const byte = 7;
    writer.write("values", 0, 1, &byte);
    EXPECT_EQ(folder.files().size(), 1U);
    EXPECT_NE(folder.files()[0], "a.h5");
    EXPECT_TRUE(says(data_error_of([&] { writer.close(); }), {"row 1", "values", "a.h5"}));
  }
  EXPECT_TRUE(folder.files().empty());
}

TEST(ShardWriterTest, AFailedReplacementKeepsTheOldShard) {
  TemporaryFolder const folder;
  write_pair_shard(folder / "p.h5", {});
  auto const before = file_bytes(folder / "p.h5");
  { ShardWriter const writer(folder / "p.h5", ShardKind::pair, {{"values", DType::u8, {2}}}, {}); }
  EXPECT_EQ(file_bytes(folder / "p.h5"), before);
  EXPECT_EQ(folder.files(), std::vector<std::string>{"p.h5"});
}

TEST(ShardWriterTest, WrongCallsAreNamed) {
  TemporaryFolder const folder;
  ShardWriter writer(folder / "a.h5", ShardKind::scene, {{"values", DType::u8, {2, 3}}, {"scene/object", DType::name, {2}}}, {});
  std::uint8_t const bytes[6] = {};
  EXPECT_TRUE(says(data_error_of([&] { writer.write("other", 0, 1, bytes); }), {"other", "a.h5"}));
  EXPECT_TRUE(says(data_error_of([&] { writer.write("values", 1, 2, bytes); }), {"values", "1 to 3", "2 rows"}));
  EXPECT_TRUE(says(data_error_of([&] { writer.write_names("scene/object", {"a"}); }), {"1 names", "scene/object"}));
  EXPECT_TRUE(says(data_error_of([&] { writer.write_names("scene/object", {"a", std::string(65, 'x')}); }), {"65 bytes", "row 1"}));
  EXPECT_TRUE(says(data_error_of([&] { ShardWriter const w(folder / "no/such.h5", ShardKind::scene, {}, {}); }),
                   {"no/such.h5", "No such file"}));
  EXPECT_TRUE(says(data_error_of([&] { ShardWriter const w(folder / "b.h5", ShardKind::scene, {{"v", DType::u8, {1, 0}}}, {}); }),
                   {"b.h5", "v", "[1,0]"}));
}

TEST(ShardWriterTest, NoRowsAreAllowed) {
  TemporaryFolder const folder;
  PairShard shard;
  shard.rows = 0;
  shard.env_rows = 0;
  shard.pairs = {};
  write_pair_shard(folder / "p.h5", shard);
  write_manifest(folder.path(), ShardKind::pair, {"p.h5"});
  EXPECT_TRUE(load_pairs(ShardIndex(folder.path())).pairs.empty());
  EXPECT_TRUE(verify_folder(folder.path()).empty());
}

TEST(ShardWriterTest, AttributesSetLateAreTheOnesWritten) {
  TemporaryFolder const folder;
  ShardWriter writer(folder / "a.h5", ShardKind::pair, {{"values", DType::u8, {1}}}, {"early", {}, {}, ""});
  std::uint8_t const byte = 7;
  writer.write("values", 0, 1, &byte);
  std::vector<float> const mean(20000, 0.1F);  // beyond what fits an object header
  writer.set_attributes({"late", mean, {2.5F}, "said"});
  writer.close();
  write_manifest(folder.path(), ShardKind::pair, {"a.h5"});
  auto const attributes = ShardIndex(folder.path()).shards()[0].attributes;
  EXPECT_EQ(attributes.producer, "late");
  EXPECT_EQ(attributes.latent_mean, mean);
  EXPECT_EQ(attributes.latent_std, std::vector<float>{2.5F});
  EXPECT_EQ(attributes.note, "said");
}

TEST(WriteManifestTest, RefusesWhatIsNoShardOfTheFolder) {
  TemporaryFolder const folder;
  write_pair_shard(folder / "p.h5", {});
  put_bytes(folder / "text.h5", "this is not HDF5");
  auto const of = [&](ShardKind kind, std::vector<std::string> const& files) {
    return data_error_of([&] { write_manifest(folder.path(), kind, files); });
  };
  EXPECT_TRUE(says(of(ShardKind::pair, {"p.h5", "q.h5"}), {"q.h5", "missing"}));
  EXPECT_TRUE(says(of(ShardKind::scene, {"p.h5"}), {"p.h5", "pair", "scene"}));
  EXPECT_TRUE(says(of(ShardKind::pair, {"text.h5"}), {"text.h5", "H5Fopen"}));
  EXPECT_TRUE(says(of(ShardKind::pair, {"p.h5", "p.h5"}), {"p.h5", "twice"}));
  PairShard diverged;
  diverged.deviation = {1, std::numeric_limits<float>::quiet_NaN()};
  write_pair_shard(folder / "nan.h5", diverged);
  EXPECT_TRUE(says(of(ShardKind::pair, {"nan.h5"}), {"nan.h5", "latent_std", "not finite"}));
  EXPECT_EQ(folder.files(), (std::vector<std::string>{"nan.h5", "p.h5", "text.h5"}));
}

TEST(ShardWriterSpaceTest, AShardThatTheDiskHasNoRoomForIsRefusedAtOnce) {
  TemporaryFolder const folder;
  auto const error = data_error_of([&] {
    ShardWriter(folder / "a.h5", ShardKind::pair, {{"latents", DType::f32, {std::int64_t{1} << 30, 1 << 20}}}, {});
  });
  EXPECT_TRUE(says(error, {"a.h5", "disk is full", "4294967296.00 MiB needed", "missing"}));
  EXPECT_EQ(folder.files(), std::vector<std::string>{});
}

TEST(ReceiptTest, OnlyTheVeryShardThatWasMadeFromTheSameIsFinished) {
  TemporaryFolder const folder;
  auto const path = folder / "pairs-00000.h5";
  auto const key = made_from_hash("checkpoint a, bf16");
  write_pair_shard(path, {});
  EXPECT_FALSE(is_finished(path, key)) << "no receipt";
  write_receipt(path, key, "producer-a");
  EXPECT_TRUE(is_finished(path, key));
  EXPECT_EQ(read_receipt(path)->producer, "producer-a");
  EXPECT_EQ(shards_with_receipts(folder.path()), std::vector<std::string>{path});
  EXPECT_FALSE(is_finished(path, made_from_hash("checkpoint a, f16")));
  flip_byte(path, std::filesystem::file_size(path) / 2);
  EXPECT_FALSE(is_finished(path, key)) << "damaged";
  write_pair_shard(path, {});
  EXPECT_TRUE(is_finished(path, key));
  put_bytes(path + ".receipt", "{\"made_from\":");
  EXPECT_FALSE(is_finished(path, key)) << "a receipt cut short";
  write_receipt(path, key, "producer-a");
  std::filesystem::remove(path);
  EXPECT_FALSE(is_finished(path, key)) << "a receipt without its shard";
  remove_receipts(folder.path());
  EXPECT_EQ(folder.files(), std::vector<std::string>{});
}

}  // namespace
}  // namespace duoflow::data::testing
