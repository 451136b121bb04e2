#include "data/shards/raw_reader.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "data/file.h"
#include "data/shards/shard_writer.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

class RawReaderTest : public ::testing::Test {
 protected:
  RawReaderTest() {
    write_pair_shard(folder / "p0.h5", {});
    write_pair_shard(folder / "p1.h5", {.salt = 2});
    write_manifest(folder.path(), ShardKind::pair, {"p0.h5", "p1.h5"});
    index = std::make_shared<ShardIndex const>(folder.path());
  }
  TemporaryFolder folder;
  std::shared_ptr<ShardIndex const> index;
};

TEST_F(RawReaderTest, ReadsRowsRunsAndParts) {
  RawReader const reader(index);
  auto const row_bytes = index->shards()[1].datasets.at("target_images").spec.row_bytes();
  std::vector<std::uint8_t> rows(2 * row_bytes), part(10);
  reader.read_rows(1, "target_images", 2, 2, rows.data());
  for (std::size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(rows[i], sample_byte(102, 2 * row_bytes + i));
  for (int time = 0; time < 2; ++time) {  // first with the whole row checked, then directly
    reader.read_part(1, "target_images", 0, 20, 10, part.data());
    for (std::size_t i = 0; i < part.size(); ++i) ASSERT_EQ(part[i], sample_byte(102, 20 + i));
  }
}

TEST_F(RawReaderTest, AnAlteredByteOfAnyDatasetIsNamed) {
  for (auto const& [name, dataset] : index->shards()[0].datasets) {
    auto const row = dataset.spec.rows() - 1;
    auto const offset = dataset.offset + static_cast<std::uint64_t>(row) * dataset.spec.row_bytes();
    flip_byte(folder / "p0.h5", offset + dataset.spec.row_bytes() - 1);
    std::vector<std::byte> bytes(dataset.spec.row_bytes());
    RawReader const reader(index);
    EXPECT_NO_THROW(reader.read(0, name, 0, bytes.data()));
    EXPECT_TRUE(says(data_error_of([&] { reader.read(0, name, row, bytes.data()); }),
                     {"p0.h5", "dataset " + name, fmt::format("row {}", row), fmt::format("offset {}", offset),
                      hex16(dataset.row_xxh3[static_cast<std::size_t>(row)])}));
    EXPECT_TRUE(says(data_error_of([&] { reader.read_part(0, name, row, 0, 1, bytes.data()); }), {"p0.h5", name}));
    EXPECT_NO_THROW(RawReader(index, Verify::never).read(0, name, row, bytes.data()));
    flip_byte(folder / "p0.h5", offset + dataset.spec.row_bytes() - 1);
  }
}

TEST_F(RawReaderTest, FirstTouchChecksOnceAndAlwaysChecksEachTime) {
  RawReader const once(index, Verify::first_touch), always(index, Verify::always);
  auto const& dataset = index->shards()[0].datasets.at("latents");
  std::vector<std::byte> bytes(dataset.spec.row_bytes());
  once.read(0, "latents", 1, bytes.data());
  always.read(0, "latents", 1, bytes.data());
  flip_byte(folder / "p0.h5", dataset.offset + dataset.spec.row_bytes());
  RawReader const fresh(index);  // flip_byte rewrites the file in place: open descriptors see it
  EXPECT_NO_THROW(once.read(0, "latents", 1, bytes.data()));
  EXPECT_THROW(always.read(0, "latents", 1, bytes.data()), DataError);
  EXPECT_THROW(fresh.read(0, "latents", 1, bytes.data()), DataError);
}

TEST_F(RawReaderTest, AShardCutShortWhileOpenIsNamed) {
  RawReader const reader(index);
  auto const& dataset = index->shards()[0].datasets.at("target_images");
  std::vector<std::byte> bytes(dataset.spec.row_bytes());
  reader.read(0, "target_images", 0, bytes.data());
  std::filesystem::resize_file(folder / "p0.h5", dataset.offset + dataset.spec.row_bytes() + 5);
  EXPECT_NO_THROW(reader.read(0, "target_images", 0, bytes.data()));
  EXPECT_TRUE(
      says(data_error_of([&] { reader.read(0, "target_images", 1, bytes.data()); }), {"p0.h5", "target_images", "row 1", "5 found"}));
}

TEST_F(RawReaderTest, RequestsOutsideAreNamed) {
  RawReader const reader(index);
  std::byte byte[4096];
  EXPECT_TRUE(says(data_error_of([&] { reader.read(2, "latents", 0, byte); }), {"shard 2", "2 shards"}));
  EXPECT_TRUE(says(data_error_of([&] { reader.read(0, "nothing", 0, byte); }), {"p0.h5", "nothing"}));
  EXPECT_TRUE(says(data_error_of([&] { reader.read(0, "latents", 4, byte); }), {"p0.h5", "latents", "4 rows"}));
  EXPECT_TRUE(says(data_error_of([&] { reader.read(0, "latents", -1, byte); }), {"p0.h5", "latents"}));
  EXPECT_TRUE(says(data_error_of([&] { reader.read_part(0, "latents", 0, 10, 3, byte); }), {"latents", "12 bytes"}));
}

// A file of holes but for one row behind 5 GiB, and a manifest that tells of it.
TEST(LargeFileTest, RowsBeyondFourGibibytesAreRead) {
  TemporaryFolder const folder;
  std::uint64_t const row_bytes = 1 << 20, offset = 4096, last = (std::uint64_t{5} << 10) - 1;
  std::string row(row_bytes, '\0'), hashes;
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<char>(sample_byte(9, i));
  auto const zero = xxh3_hex(std::string(row_bytes, '\0').data(), row_bytes);
  for (std::uint64_t i = 0; i < last; ++i) hashes += "\"" + zero + "\",";
  hashes += "\"" + xxh3_hex(row.data(), row.size()) + "\"";
  put_bytes(folder / "p.h5", "");
  std::filesystem::resize_file(folder / "p.h5", offset + last * row_bytes);
  std::ofstream(folder / "p.h5", std::ios::binary | std::ios::app) << row;
  put_bytes(
      folder / "manifest.json",
      rehashed(fmt::format("{{\"kind\":\"pair\",\"schema_version\":1,\"shards\":[{{\"attributes\":{{\"latent_mean\":[],\"latent_std\":[],"
                           "\"note\":\"\",\"producer\":\"\"}},\"bytes\":{},\"datasets\":{{\"values\":{{\"dtype\":\"u8\",\"offset\":{},"
                           "\"raw\":true,\"row_xxh3\":[{}],\"shape\":[{},{}]}}}},\"file\":\"p.h5\",\"xxh3\":\"{}\"}}],\"xxh3\":\"\"}}",
                           offset + (last + 1) * row_bytes, offset, hashes, last + 1, row_bytes, zero)));
  auto const large = std::make_shared<ShardIndex const>(folder.path());
  std::string found(row_bytes, '\0');
  RawReader const reader(large, Verify::always);
  reader.read(0, "values", static_cast<std::int64_t>(last), found.data());
  EXPECT_EQ(found, row);
  reader.read(0, "values", 2047, found.data());  // ends at 2 GiB of rows
  EXPECT_EQ(found, std::string(row_bytes, '\0'));
}

TEST_F(RawReaderTest, ThreadsReadTheSameBytes) {
  RawReader const reader(index);
  auto const row_bytes = index->shards()[0].datasets.at("target_images").spec.row_bytes();
  std::vector<std::vector<std::uint8_t>> found(4, std::vector<std::uint8_t>(4 * row_bytes));
  std::vector<std::thread> threads;
  for (auto& bytes : found)
    threads.emplace_back([&reader, &bytes, row_bytes] {
      for (int time = 0; time < 50; ++time)
        for (std::size_t row = 0; row < 4; ++row)
          reader.read(0, "target_images", static_cast<std::int64_t>(row), bytes.data() + row * row_bytes);
    });
  for (auto& thread : threads) thread.join();
  for (auto const& bytes : found)
    for (std::size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], sample_byte(101, i));
}

}  // namespace
}  // namespace duoflow::data::testing
