// Splitting: no object, light or view set of one part is in another, and what is known today stays where it is.

#include "data/tools/split.h"

#include <fmt/format.h>

#include <filesystem>
#include <set>

#include "data/tools/index_folder.h"
#include "data/shards/shard_writer.h"
#include "named_folders.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

namespace fs = std::filesystem;

std::vector<Part> const kHalves = {{"train", 0.5}, {"test", 0.5}};

Names numbered(std::string const& prefix, int count) {
  Names names;
  for (int i = 0; i < count; ++i) names.push_back(fmt::format("{}{}", prefix, i));
  return names;
}

std::set<std::string> field(Names const& units, int number) {
  std::set<std::string> values;
  for (auto const& unit : units) {
    auto const slash = unit.find('/');
    values.insert(number == 0 ? unit.substr(0, slash) : unit.substr(slash + 1, unit.rfind('/') - slash - 1));
  }
  return values;
}

std::set<std::string> common(std::set<std::string> const& a, std::set<std::string> const& b) {
  std::set<std::string> both;
  for (auto const& value : a)
    if (b.count(value) != 0) both.insert(value);
  return both;
}

class SplitTest : public ::testing::Test {
 protected:
  std::string pairs(std::string const& name, Names const& objects, Names const& lights) {
    fs::create_directories(folder / name);
    write_named_pairs(folder / name + "/pairs-00000.h5", {.objects = objects, .lights = lights});
    write_manifest(folder / name, ShardKind::pair, {"pairs-00000.h5"});
    return folder / name;
  }
  Names train() { return unit_names(folder / "out/train"); }
  Names test() { return unit_names(folder / "out/test"); }
  TemporaryFolder folder;
};

TEST_F(SplitTest, EveryObjectIsInExactlyOnePartWithAllItsRows) {
  auto const objects = numbered("o", 12), lights = numbered("l", 3);
  auto const reports =
      split_folder(pairs("all", objects, lights), {kHalves, SplitBy::object, 1}, {.out = folder / "out"});
  EXPECT_EQ(reports[0].units + reports[1].units, 36);
  EXPECT_EQ(reports[0].pairs + reports[1].pairs, 12 * 6);
  EXPECT_EQ(reports[0].pairs_left_out, 0);
  EXPECT_EQ(common(field(train(), 0), field(test(), 0)), std::set<std::string>{});
  EXPECT_EQ(train().size(), 3 * field(train(), 0).size());
  for (auto const* part : {"out/train", "out/test"}) {
    expect_named_contents(folder / part);
    EXPECT_EQ(verify_folder(folder / part), Names{});
  }
}

TEST_F(SplitTest, NoViewSetOfAnObjectIsInTwoParts) {
  fs::create_directories(folder / "views");
  for (std::int64_t set = 0; set < 2; ++set)
    write_named_pairs(folder / fmt::format("views/pairs-0000{}.h5", set),
                      {.objects = numbered("o", 8), .lights = {"x", "y"}, .view_set = set});
  write_manifest(folder / "views", ShardKind::pair, {"pairs-00000.h5", "pairs-00001.h5"});
  split_folder(folder / "views", {kHalves, SplitBy::object, 1}, {.out = folder / "out"});
  auto const views = [](Names const& units) {
    std::set<std::string> result;  // object and view set, without the light
    for (auto const& unit : units) result.insert(unit.substr(0, unit.find('/')) + unit.substr(unit.rfind('/')));
    return result;
  };
  EXPECT_EQ(common(views(train()), views(test())), std::set<std::string>{});
  EXPECT_EQ(views(train()).size() + views(test()).size(), 16U);
}

TEST_F(SplitTest, ByLightNoLightOfOnePartIsInAnother) {
  auto const lights = numbered("l", 10);
  auto const reports =
      split_folder(pairs("all", {"a", "b"}, lights), {kHalves, SplitBy::light, 1}, {.out = folder / "out"});
  EXPECT_EQ(common(field(train(), 1), field(test(), 1)), std::set<std::string>{});
  auto const n = static_cast<std::int64_t>(field(train(), 1).size()),
             m = static_cast<std::int64_t>(field(test(), 1).size());
  EXPECT_EQ(n + m, 10);
  EXPECT_EQ(reports[0].pairs, 2 * n * (n - 1));
  EXPECT_EQ(reports[0].pairs_left_out, 2 * 2 * n * m);  // both directions, of two objects
}

TEST_F(SplitTest, TurnedCopiesOfOneMapStayTogether) {
  Names lights;
  for (int map = 0; map < 8; ++map)
    for (int turn = 0; turn < 2; ++turn) lights.push_back(fmt::format("env_{}_{}", map, turn));
  split_folder(pairs("all", {"a"}, lights), {kHalves, SplitBy::light, 1}, {.out = folder / "out"});
  std::set<std::string> bases[2];
  for (int part = 0; part < 2; ++part)
    for (auto const& light : field(part == 0 ? train() : test(), 1))
      bases[part].insert(light.substr(0, light.rfind('_')));
  EXPECT_EQ(common(bases[0], bases[1]), std::set<std::string>{});
}

TEST_F(SplitTest, ByBothNeitherObjectNorLightIsShared) {
  split_folder(pairs("all", numbered("o", 8), numbered("l", 8)), {kHalves, SplitBy::both, 3}, {.out = folder / "out"});
  EXPECT_EQ(common(field(train(), 0), field(test(), 0)), std::set<std::string>{});
  EXPECT_EQ(common(field(train(), 1), field(test(), 1)), std::set<std::string>{});
}

TEST_F(SplitTest, ObjectsAddedLaterMoveNoOther) {
  std::vector<Part> const parts = {{"train", 0.7}, {"val", 0.1}, {"test", 0.2}};
  int counts[3] = {};
  for (auto const& name : numbered("object_", 2000)) ++counts[part_of(name, 5, parts).value()];
  EXPECT_NEAR(counts[0], 1400, 100);
  EXPECT_NEAR(counts[1], 200, 60);
  EXPECT_NEAR(counts[2], 400, 80);
  // Two folders, one with more in it: the shared objects are in the same parts.
  split_folder(pairs("few", numbered("o", 6), {"x", "y"}), {kHalves, SplitBy::object, 1}, {.out = folder / "out"});
  auto const before = field(train(), 0);
  split_folder(pairs("more", numbered("o", 12), {"x", "y"}), {kHalves, SplitBy::object, 1}, {.out = folder / "again"});
  auto const after = field(unit_names(folder / "again/train"), 0);
  for (auto const& object : field(unit_names(folder / "few"), 0))
    EXPECT_EQ(before.count(object), after.count(object)) << object;
}

TEST_F(SplitTest, PlacesAreTheSameForEver) {
  // A change of these numbers would move objects of users' data sets from test to train.
  std::vector<Part> const tenths = {{"0", .1}, {"1", .1}, {"2", .1}, {"3", .1}, {"4", .1},
                                    {"5", .1}, {"6", .1}, {"7", .1}, {"8", .1}, {"9", .1}};
  std::string places;
  for (auto const* name : {"bunny", "suzi", "object_0", "object_1", "", "env_000"})
    places += tenths[part_of(name, 0, tenths).value()].name;
  EXPECT_EQ(places, "005611");
}

TEST_F(SplitTest, MergedPartsAreTheRepackedWhole) {
  auto const all = pairs("all", numbered("o", 6), {"x", "y"});
  split_folder(all, {kHalves, SplitBy::object, 1}, {.out = folder / "out"});
  merge_folders({folder / "out/test", folder / "out/train"}, {.out = folder / "merged"});
  repack_folder(all, {.out = folder / "repacked"});
  EXPECT_TRUE(file_bytes(folder / "merged/manifest.json") == file_bytes(folder / "repacked/manifest.json"));
}

TEST_F(SplitTest, FractionsBelowOneLeaveTheRestOut) {
  auto const reports = split_folder(pairs("all", numbered("o", 12), {"x", "y"}), {{{"some", 0.5}}, SplitBy::object, 1},
                                    {.out = folder / "out"});
  EXPECT_LT(reports[0].units, 24);
  EXPECT_EQ(fs::exists(folder / "out/some/manifest.json"), true);
}

TEST_F(SplitTest, EmptyPartsAndSenselessOnesAreRefused) {
  auto const one = pairs("one", {"a"}, {"x", "y"});
  EXPECT_TRUE(says(data_error_of([&] {
                     split_folder(one, {kHalves, SplitBy::object, 1}, {.out = folder / "out"});
                   }),
                   {"gets no row with seed 1", "another seed"}));
  EXPECT_EQ(folder.files(), Names{"one"});
  auto const refused = [](std::vector<Part> const& parts) { return data_error_of([&] { check_parts(parts); }); };
  EXPECT_TRUE(says(refused({}), {"needs parts"}));
  EXPECT_TRUE(says(refused({{"a", 0.5}, {"a", 0.5}}), {"\"a\"", "twice"}));
  EXPECT_TRUE(says(refused({{"a/b", 0.5}}), {"\"a/b\""}));
  EXPECT_TRUE(says(refused({{"a", 0}}), {"fraction 0"}));
  EXPECT_TRUE(says(refused({{"a", 0.9}, {"b", 0.2}}), {"sum to 1.1"}));
}

}  // namespace
}  // namespace duoflow::data::testing
