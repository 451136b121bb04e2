#include <fmt/format.h>

#include <filesystem>

#include "data/file.h"
#include "data/shards/shard_index.h"
#include "data/shards/shard_scan.h"
#include "data/shards/shard_writer.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

std::string verdict(TemporaryFolder const& folder) { return fmt::format("{}", fmt::join(verify_folder(folder.path()), "\n")); }

class VerifyFolderTest : public ::testing::Test {
 protected:
  void make(PairShard const& shard) const {
    write_pair_shard(folder / "p.h5", shard);
    write_manifest(folder.path(), ShardKind::pair, {"p.h5"});
  }
  TemporaryFolder folder;
};

TEST_F(VerifyFolderTest, GoodFoldersHaveNoProblems) {
  make({});
  EXPECT_EQ(verdict(folder), "");
  TemporaryFolder const scenes;
  write_scene_shard(scenes / "s.h5", {});
  write_manifest(scenes.path(), ShardKind::scene, {"s.h5"});
  EXPECT_EQ(verdict(scenes), "");
}

TEST_F(VerifyFolderTest, AnyAlteredByteOfTheShardIsFound) {
  make({.tokens = 1, .dim = 2, .targets = 1, .height = 1, .width = 1, .env_height = 1, .env_width = 1});
  auto const bytes = std::filesystem::file_size(folder / "p.h5");
  for (std::uint64_t at = 0; at < bytes; at += 97) {
    flip_byte(folder / "p.h5", at);
    EXPECT_TRUE(says(verdict(folder), {"p.h5"})) << "byte " << at;
    flip_byte(folder / "p.h5", at);
  }
  EXPECT_EQ(verdict(folder), "");
}

// One byte of every kind of place: rows of each dataset, what HDF5 keeps around them, and the manifest.
TEST_F(VerifyFolderTest, EveryKindOfPlaceIsNamed) {
  make({.height = 40, .width = 40});  // pictures beyond 64 KiB start at a multiple of 4096: there is padding before them
  ShardIndex const index(folder.path());
  auto const& shard = index.shards()[0];
  auto const regions = regions_of(shard.datasets, shard.bytes);
  std::size_t outside = 0, padding = 0;
  for (auto const& region : regions) {
    outside += region.dataset == nullptr;
    for (auto const at : {region.begin, region.begin + region.bytes / 2, region.begin + region.bytes - 1}) {
      padding += region.dataset == nullptr && file_bytes(folder / "p.h5")[at] == 0;
      flip_byte(folder / "p.h5", at);
      auto const found = verdict(folder);
      if (region.dataset == nullptr) {
        EXPECT_TRUE(says(found, {"p.h5: the file is altered", "p.h5: bytes outside every directly read row are altered"})) << at;
        EXPECT_EQ(found.find("dataset"), std::string::npos) << found;
      } else {
        auto const& spec = region.dataset->spec;
        EXPECT_TRUE(says(found, {"p.h5: the file is altered",
                                 fmt::format("p.h5: dataset {} row {} at", spec.name, (at - region.begin) / spec.row_bytes())}));
        EXPECT_EQ(found.find("outside"), std::string::npos) << found;
      }
      flip_byte(folder / "p.h5", at);
    }
  }
  EXPECT_EQ(regions.size() - outside, shard.datasets.size());
  EXPECT_GT(outside, 1U);
  EXPECT_GT(padding, 0U);
  for (std::uint64_t at = 0; at + 1 < std::filesystem::file_size(folder / "manifest.json"); at += 53) {
    flip_byte(folder / "manifest.json", at);
    EXPECT_TRUE(says(verdict(folder), {"manifest.json"})) << at;
    flip_byte(folder / "manifest.json", at);
  }
  EXPECT_EQ(verdict(folder), "");
}

TEST_F(VerifyFolderTest, EachByteIsCountedOnceWhateverTheThreads) {
  std::vector<std::string> files;
  std::uint64_t bytes = 0;
  for (std::uint64_t i = 0; i < 5; ++i) {
    files.push_back(fmt::format("p{}.h5", i));
    write_pair_shard(folder / files.back(), {.salt = i});
    bytes += std::filesystem::file_size(folder / files.back());
  }
  write_manifest(folder.path(), ShardKind::pair, files);
  flip_byte(folder / "p1.h5", 4);
  flip_byte(folder / "p3.h5", 4);
  std::vector<std::string> first;
  for (int const threads : {1, 2, 8}) {
    std::uint64_t last = 0;
    auto const problems = verify_folder(folder.path(), {.threads = threads, .progress = [&](std::uint64_t done, std::uint64_t in_all) {
                                                          EXPECT_GT(done, last);
                                                          EXPECT_EQ(in_all, bytes);
                                                          last = done;
                                                        }});
    EXPECT_EQ(last, bytes);
    if (first.empty()) first = problems;
    EXPECT_EQ(problems, first) << threads << " threads";
    EXPECT_EQ(problems.size(), 4U);  // of each of the two the file and its metadata
  }
}

TEST_F(VerifyFolderTest, AnAlteredRowIsNamed) {
  make({});
  auto const images = ShardIndex(folder.path()).shards()[0].datasets.at("target_images");
  flip_byte(folder / "p.h5", images.offset + 2 * images.spec.row_bytes());
  EXPECT_TRUE(says(verdict(folder), {"p.h5: dataset target_images row 2 at offset", "p.h5: the file is altered"}));
}

TEST_F(VerifyFolderTest, AMissingOrShortShardAndAMissingManifestAreNamed) {
  make({});
  std::filesystem::resize_file(folder / "p.h5", 3000);
  EXPECT_TRUE(says(verdict(folder), {"p.h5: 3000 bytes", "p.h5: the file ends inside dataset"}));
  std::filesystem::remove(folder / "p.h5");
  EXPECT_TRUE(says(verdict(folder), {"p.h5", "missing"}));
  std::filesystem::remove(folder / "manifest.json");
  EXPECT_TRUE(says(verdict(folder), {folder.path(), "manifest.json"}));
}

TEST_F(VerifyFolderTest, AShardThatTheManifestDoesNotListIsNamed) {
  make({});
  std::filesystem::copy(folder / "p.h5", folder / "stray.h5");
  put_bytes(folder / "notes.txt", "not a shard");
  EXPECT_TRUE(says(verdict(folder), {"stray.h5: the file is not in the manifest", "remove it"}));
  EXPECT_EQ(verify_folder(folder.path()).size(), 1U);
  make({.camera_scale = 3});  // what the listed shards hold is looked at all the same
  EXPECT_TRUE(says(verdict(folder), {"stray.h5: the file is not", "p.h5: dataset target_c2w row 0"}));
}

TEST_F(VerifyFolderTest, AnotherShardUnderTheNameIsFound) {
  make({});
  write_pair_shard(folder / "p.h5", {.producer = "producer-b"});
  EXPECT_TRUE(says(verdict(folder), {"p.h5: the file is altered"}));
}

// A manifest that is itself intact but tells of another file than the one its hash is of.
TEST_F(VerifyFolderTest, AManifestThatDisagreesWithTheFileIsFound) {
  make({});
  auto const with = [&](std::string const& from, std::string const& to) {
    auto text = file_bytes(folder / "manifest.json");
    auto const at = text.find(from);
    text.replace(at, from.size(), to);
    put_bytes(folder / "manifest.json", rehashed(text));
    auto const found = verdict(folder);
    make({});
    return found;
  };
  EXPECT_TRUE(says(with("\"shape\":[4,3,2]", "\"shape\":[4,2,2]"), {"dataset latents is bf16 [4,3,2]", "says bf16 [4,2,2]"}));
  EXPECT_TRUE(says(with("\"producer\":\"producer-a\"", "\"producer\":\"producer-b\""), {"p.h5: the attributes differ"}));
  auto const hash = hex16(ShardIndex(folder.path()).shards()[0].datasets.at("latents").row_xxh3[2]);
  EXPECT_TRUE(says(with(hash, "0123456789abcdef"), {"dataset latents row 2", "0123456789abcdef"}));
  EXPECT_TRUE(says(with("\"latents\"", "\"latentz\""), {"latents is not in the manifest", "latentz is in the manifest but not"}));
}

TEST_F(VerifyFolderTest, SenselessContentIsFoundThoughItsHashIsRight) {
  make({.camera_scale = 3});
  EXPECT_TRUE(says(verdict(folder), {"p.h5: dataset target_c2w row 0 view 0 (object_0 under light_0)"}));
  make({.pairs = {0, 9}});
  EXPECT_TRUE(says(verdict(folder), {"pair 0", "rows 0 and 9"}));
}

TEST_F(VerifyFolderTest, NumbersThatAreNotFiniteAreFoundInEveryFloatType) {
  for (auto const& [dtype, bits] :
       {std::pair{DType::f32, std::vector<std::uint8_t>{0, 0, 0x80, 0x7f}}, {DType::f16, {0, 0x7c}}, {DType::bf16, {0xc0, 0x7f}}}) {
    ShardWriter writer(folder / "p.h5", ShardKind::pair, {{"values", dtype, {3, 2}}}, {});
    std::vector<std::uint8_t> bytes(6 * bits.size(), 0x3f);
    writer.write("values", 0, 3, bytes.data());
    std::copy(bits.begin(), bits.end(), bytes.begin() + static_cast<std::ptrdiff_t>(bits.size()));
    writer.write("values", 1, 1, bytes.data());
    writer.close();
    write_manifest(folder.path(), ShardKind::pair, {"p.h5"});
    EXPECT_TRUE(says(verdict(folder), {"p.h5: dataset values row 1 holds a number that is not finite"})) << to_string(dtype);
  }
}

}  // namespace
}  // namespace duoflow::data::testing
