#include "dist/checkpoint/layout.h"

#include <numeric>

#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

using Indices = std::vector<std::size_t>;

std::vector<FilePlan> part_of(std::vector<FilePlan> const& files, std::string const& part) {
  std::vector<FilePlan> found;
  for (FilePlan const& file : files) {
    if (file.part == part) found.push_back(file);
  }
  return found;
}

TEST(LayoutTest, EqualTensorsAreDividedEqually) {
  auto const files = plan_files({8, 8, 8, 8}, {4, 4}, 2, 1000);
  ASSERT_EQ(files.size(), 4u);
  EXPECT_EQ(files[0].name, "model-00001-of-00002.safetensors");
  EXPECT_EQ(files[0].tensors, (Indices{0, 1}));
  EXPECT_EQ(files[0].rank, 0);
  EXPECT_EQ(files[1].name, "model-00002-of-00002.safetensors");
  EXPECT_EQ(files[1].tensors, (Indices{2, 3}));
  EXPECT_EQ(files[1].rank, 1);
  EXPECT_EQ(files[2].name, "state-00000-of-00002.safetensors");
  EXPECT_EQ(files[2].tensors, Indices{0});
  EXPECT_EQ(files[3].name, "state-00001-of-00002.safetensors");
  EXPECT_EQ(files[3].rank, 1);
}

TEST(LayoutTest, OneRankWritesOneFileUpToTheLimit) {
  EXPECT_EQ(part_of(plan_files({10, 10, 10}, {}, 1, 31), "model").size(), 1u);
  auto const split = part_of(plan_files({10, 10, 10, 10, 10, 10}, {}, 1, 25), "model");
  ASSERT_EQ(split.size(), 3u);
  EXPECT_EQ(split[2].tensors, (Indices{4, 5}));
}

TEST(LayoutTest, ALargeTensorIsNotCutAndLeavesNoEmptyModelFile) {
  auto const model = part_of(plan_files({1, 1000, 1}, {}, 4, 10), "model");
  for (FilePlan const& file : model) EXPECT_FALSE(file.tensors.empty()) << file.name;
  EXPECT_EQ(model.back().name,
            "model-0000" + std::to_string(model.size()) + "-of-0000" + std::to_string(model.size()) + ".safetensors");
}

TEST(LayoutTest, EveryTensorIsWrittenOnceInListOrderByARankOfTheWorld) {
  std::vector<std::uint64_t> const bytes = {0, 3, 100, 0, 7, 7, 7, 50, 1, 0};
  for (int world = 1; world <= 7; ++world) {
    for (std::uint64_t const limit : {1u, 20u, 1000u}) {
      auto const files = plan_files(bytes, bytes, world, limit);
      for (std::string const part : {"model", "state"}) {
        Indices seen;
        int last_rank = 0;
        for (FilePlan const& file : part_of(files, part)) {
          EXPECT_GE(file.rank, last_rank);
          EXPECT_LT(file.rank, world);
          last_rank = file.rank;
          seen.insert(seen.end(), file.tensors.begin(), file.tensors.end());
        }
        Indices expected(bytes.size());
        std::iota(expected.begin(), expected.end(), std::size_t{0});
        EXPECT_EQ(seen, expected) << part << " " << world << " " << limit;
      }
      auto const state = part_of(files, "state");
      ASSERT_EQ(state.size(), static_cast<std::size_t>(world));
      for (int rank = 0; rank < world; ++rank) {
        auto const [first, last] = state_share(bytes, rank, world);
        Indices share(last - first);
        std::iota(share.begin(), share.end(), first);
        EXPECT_EQ(share, state[static_cast<std::size_t>(rank)].tensors) << rank << " of " << world;
      }
    }
  }
}

TEST(LayoutTest, NothingAndEmptyTensorsMakeOneModelFile) {
  EXPECT_EQ(part_of(plan_files({}, {}, 3, 10), "model").size(), 1u);
  EXPECT_EQ(part_of(plan_files({0, 0}, {}, 3, 10), "model").size(), 1u);
  EXPECT_EQ(part_of(plan_files({}, {}, 3, 10), "state").size(), 3u);
}

}  // namespace
}  // namespace duoflow::dist
