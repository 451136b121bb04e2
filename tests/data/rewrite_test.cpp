// Repack and merge: what arrives, in which order, in which bytes; and what they refuse.

#include "data/tools/rewrite.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>

#include "data/tools/float_rows.h"
#include "data/tools/index_folder.h"
#include "data/tools/new_folder.h"
#include "data/shards/shard_writer.h"
#include "named_folders.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

namespace fs = std::filesystem;

std::string with_manifest(std::string const& folder, ShardKind kind) {
  write_manifest(folder, kind, shard_files(folder));
  return folder;
}

class RewriteTest : public ::testing::Test {
 protected:
  std::string pairs(std::string const& name, Names const& objects, Names const& lights = {"sun", "moon"},
                    std::string const& producer = "p") {
    fs::create_directories(folder / name);
    write_named_pairs(folder / name + "/pairs-00000.h5", {.objects = objects, .lights = lights, .producer = producer});
    return with_manifest(folder / name, ShardKind::pair);
  }
  std::string scenes(std::string const& name, Names const& objects, Names const& lights = {"sun", "moon"}) {
    fs::create_directories(folder / name);
    write_named_scenes(folder / name + "/scenes-00000.h5", {.objects = objects, .lights = lights});
    return with_manifest(folder / name, ShardKind::scene);
  }
  RewriteOptions out(std::string const& name, std::int64_t per_shard = 0) {
    return {.out = folder / name, .per_shard = per_shard};
  }
  void expect_equal_folders(std::string const& a, std::string const& b) {
    auto const files = [](std::string const& path) {
      Names names;
      for (auto const& entry : fs::directory_iterator(path)) names.push_back(entry.path().filename().string());
      std::sort(names.begin(), names.end());
      return names;
    };
    ASSERT_EQ(files(a), files(b));
    for (auto const& file : files(a)) EXPECT_TRUE(file_bytes(a + "/" + file) == file_bytes(b + "/" + file)) << file;
  }
  TemporaryFolder folder;
};

TEST_F(RewriteTest, RepackedRowsAreSortedAndWhole) {
  auto const report = repack_folder(pairs("a", {"zebra", "ant", "cow"}), out("b", 4));
  EXPECT_EQ(report.shards, 2);
  EXPECT_EQ(report.units, 6);
  EXPECT_EQ(unit_names(folder / "b"),
            (Names{"ant/moon/0", "ant/sun/0", "cow/moon/0", "cow/sun/0", "zebra/moon/0", "zebra/sun/0"}));
  EXPECT_EQ(pair_names(folder / "b"), (Names{"ant: moon > sun", "ant: sun > moon", "cow: moon > sun", "cow: sun > moon",
                                             "zebra: moon > sun", "zebra: sun > moon"}));
  expect_named_contents(folder / "b");
  EXPECT_EQ(verify_folder(folder / "b"), Names{});
}

TEST_F(RewriteTest, EqualLightMapsAreStoredOncePerShard) {
  repack_folder(pairs("a", {"x", "y", "z"}), out("b"));
  EXPECT_EQ(ShardIndex(folder / "b").shards()[0].datasets.at("env").spec.rows(), 2);
}

TEST_F(RewriteTest, RepackedScenesAreSortedAndWhole) {
  auto const report = repack_folder(scenes("a", {"zebra", "ant"}), out("b", 3));
  EXPECT_EQ(report.shards, 2);
  EXPECT_EQ(unit_names(folder / "b"), (Names{"ant/moon/0", "ant/sun/0", "zebra/moon/0", "zebra/sun/0"}));
  expect_named_contents(folder / "b");
  EXPECT_EQ(verify_folder(folder / "b"), Names{});
}

TEST_F(RewriteTest, RowsThatPairsJoinStayInOneShard) {
  repack_folder(pairs("a", {"x", "y"}, {"l0", "l1", "l2"}), out("b", 1));
  auto const shards = ShardIndex(folder / "b").shards();
  ASSERT_EQ(shards.size(), 2U);
  EXPECT_EQ(shards[0].datasets.at("latents").spec.rows(), 3);
  EXPECT_EQ(pair_names(folder / "b").size(), 12U);
}

TEST_F(RewriteTest, AShardEndsWhereItsBytesWouldExceedTheLimit) {
  auto options = out("b");
  options.shard_bytes = 1;
  EXPECT_EQ(repack_folder(scenes("a", {"x", "y"}), options).shards, 4);
}

TEST_F(RewriteTest, RepackingAgainChangesNoByte) {
  repack_folder(pairs("a", {"b", "a"}), out("b", 2));
  repack_folder(folder / "b", out("c", 2));
  expect_equal_folders(folder / "b", folder / "c");
}

TEST_F(RewriteTest, MergedFoldersAreTheRepackedUnionInAnyOrder) {
  repack_folder(pairs("whole", {"a", "b", "c"}), out("expected", 2));
  auto const ab = pairs("ab", {"a", "b"}), c = pairs("c", {"c"});
  merge_folders({ab, c}, out("abc", 2));
  merge_folders({c, ab}, out("cab", 2));
  expect_equal_folders(folder / "expected", folder / "abc");
  expect_equal_folders(folder / "expected", folder / "cab");
}

TEST_F(RewriteTest, MergedScenesAreTheRepackedUnion) {
  repack_folder(scenes("whole", {"a", "b"}), out("expected"));
  merge_folders({scenes("b", {"b"}), scenes("a", {"a"})}, out("merged"));
  expect_equal_folders(folder / "expected", folder / "merged");
}

TEST_F(RewriteTest, OneRowInTwoFoldersIsNamed) {
  auto const message = data_error_of([&] {
    merge_folders({pairs("one", {"a", "b"}), pairs("two", {"b"}, {"moon"})}, out("m"));
  });
  EXPECT_TRUE(says(message, {"object b under light moon with view set 0", "one/pairs-00000.h5", "two/pairs-00000.h5"}));
  EXPECT_TRUE(says(data_error_of([&] {
                     merge_folders({scenes("s", {"a"}), scenes("t", {"a"})}, out("m"));
                   }),
                   {"object a under light moon is"}));
  EXPECT_FALSE(fs::exists(folder / "m"));
}

TEST_F(RewriteTest, FoldersThatDifferAreRefusedWithBothValues) {
  auto const a = pairs("a", {"a"}, {"l", "m"}, "first");
  EXPECT_TRUE(says(data_error_of([&] {
                     merge_folders({a, pairs("b", {"b"}, {"l", "m"}, "second")}, out("m"));
                   }),
                   {"b has the producer second", "a has first"}));
  EXPECT_TRUE(says(data_error_of([&] {
                     merge_folders({a, scenes("s", {"b"})}, out("m"));
                   }),
                   {"kind scene", "a has pair"}));
  fs::create_directories(folder / "c");
  write_named_pairs(folder / "c/pairs-00000.h5",
                    {.objects = {"c"}, .lights = {"l", "m"}, .tokens = 5, .producer = "first"});
  with_manifest(folder / "c", ShardKind::pair);
  EXPECT_TRUE(says(data_error_of([&] { merge_folders({a, folder / "c"}, out("m")); }), {"tokens 5", "has 3"}));
  EXPECT_TRUE(says(data_error_of([&] { merge_folders({a}, out("m")); }), {"two folders or more"}));
}

TEST_F(RewriteTest, LatentsOfTwoTypesMergeWhereOneIsChosen) {
  auto const a = pairs("a", {"a"});
  auto small = out("small");
  small.latent_dtype = DType::bf16;
  repack_folder(pairs("b", {"b"}), small);
  EXPECT_TRUE(says(data_error_of([&] {
                     merge_folders({a, folder / "small"}, out("m"));
                   }),
                   {"type bf16", "a has f32", "--dtype"}));
  auto options = out("m");
  options.latent_dtype = DType::f16;
  merge_folders({a, folder / "small"}, options);
  EXPECT_EQ(load_pairs(ShardIndex(folder / "m")).latent_dtype, DType::f16);
}

TEST_F(RewriteTest, StatisticsAreThoseOfTheStoredNumbers) {
  NamedPairs const form{.objects = {}, .lights = {}};
  auto options = out("b", 2);
  options.latent_dtype = DType::bf16;
  repack_folder(pairs("a", {"a", "b"}), options);
  std::vector<double> sum(4, 0), squares(4, 0);
  for (auto const* object : {"a", "b"})
    for (auto const* light : {"sun", "moon"}) {
      auto const numbers = named_latents(form, object, light);
      for (std::size_t i = 0; i < numbers.size(); ++i) {
        double const x = static_cast<double>(from_bf16(to_bf16(numbers[i])));
        sum[i % 4] += x / 12;
        squares[i % 4] += x * x / 12;
      }
    }
  auto const set = load_pairs(ShardIndex(folder / "b"));
  for (std::size_t c = 0; c < 4; ++c) {
    EXPECT_NEAR(set.latent_mean[c], sum[c], 1e-6);
    EXPECT_NEAR(set.latent_std[c], std::sqrt(squares[c] - sum[c] * sum[c]), 1e-6);
  }
}

TEST_F(RewriteTest, AFolderWithoutManifestIsReadAndIndexed) {
  auto const a = pairs("a", {"a", "b"});
  repack_folder(a, out("expected"));
  fs::remove(a + "/manifest.json");
  repack_folder(a, out("b"));
  expect_equal_folders(folder / "expected", folder / "b");
  auto const indexed = index_folder(a);
  EXPECT_EQ(indexed.kind, ShardKind::pair);
  EXPECT_EQ(verify_folder(a), Names{});
  EXPECT_TRUE(says(data_error_of([&] { index_folder(a); }), {"has a manifest.json", "verify"}));
}

TEST_F(RewriteTest, AFolderThatIsNoDataSetGetsNoManifest) {
  fs::create_directories(folder / "half");
  ShardWriter writer(folder / "half/pairs-00000.h5", ShardKind::pair, {{"latents", DType::f32, {1, 1, 1}}}, {});
  float const one = 1;
  writer.write("latents", 0, 1, &one);
  writer.close();
  EXPECT_TRUE(
      says(data_error_of([&] { index_folder(folder / "half"); }), {"pairs-00000.h5", "no dataset target_images"}));
  EXPECT_FALSE(fs::exists(folder / "half/manifest.json"));
  fs::create_directories(folder / "empty");
  EXPECT_TRUE(says(data_error_of([&] { index_folder(folder / "empty"); }), {"empty", "no shard"}));
}

TEST_F(RewriteTest, AnAlteredSourceIsFoundAndNothingIsLeft) {
  auto const a = pairs("a", {"a"});
  auto const offset = ShardIndex(a).shards()[0].datasets.at("target_images").offset;
  flip_byte(a + "/pairs-00000.h5", offset + 3);
  EXPECT_TRUE(
      says(data_error_of([&] { repack_folder(a, out("b")); }), {"pairs-00000.h5", "target_images row 0", "altered"}));
  EXPECT_EQ(folder.files(), Names{"a"});
}

TEST_F(RewriteTest, AnOutputThatIsThereIsRefusedUnlessEmpty) {
  auto const a = pairs("a", {"a"});
  EXPECT_TRUE(says(data_error_of([&] { repack_folder(a, out("a")); }), {"/a is there already"}));
  put_bytes(folder / "file", "x");
  EXPECT_TRUE(says(data_error_of([&] { repack_folder(a, out("file")); }), {"file is there already"}));
  fs::create_directories(folder / "empty");
  repack_folder(a, out("empty/"));
  expect_named_contents(folder / "empty");
}

TEST_F(RewriteTest, AFileThatCannotGrowLeavesNothing) {
  auto const a = scenes("a", {"a", "b", "c", "d"});
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  auto const handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit const small{1000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  auto const message = data_error_of([&] { repack_folder(a, out("b")); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(says(message, {"scenes-00000.h5", "File too large"}));
  EXPECT_EQ(folder.files(), Names{"a"});
}

TEST_F(RewriteTest, ADiskTooSmallIsKnownBeforeTheWork) {
  NewFolder const place(folder / "b");
  place.require_space(1);
  EXPECT_TRUE(says(data_error_of([&] { place.require_space(std::uint64_t{1} << 62); }),
                   {"/b needs 4294967296.00 GiB", "missing"}));
}

TEST_F(RewriteTest, LatentsOfAnotherTypeAreRefusedWhereThereAreNone) {
  auto options = out("b");
  options.latent_dtype = DType::bf16;
  EXPECT_TRUE(says(data_error_of([&] { repack_folder(scenes("s", {"a"}), options); }), {"scene shards", "bf16"}));
  options.latent_dtype = DType::u8;
  EXPECT_TRUE(says(data_error_of([&] { repack_folder(pairs("p", {"a"}), options); }), {"u8", "bf16"}));
}

}  // namespace
}  // namespace duoflow::data::testing
