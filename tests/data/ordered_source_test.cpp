#include "data/order/ordered_source.h"

#include <cstring>
#include <map>
#include <set>

#include "data/order/near_pairs.h"
#include "data/order/sample_log.h"
#include "data/order/sampler.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

TEST(SkippedPositionsTest, TheRestKeepsItsOrder) {
  std::vector<std::vector<PositionRange>> const cases = {{},
                                                         {{0, 0}},
                                                         {{0, 4}},
                                                         {{3, 5}},
                                                         {{3, 5}, {7, 7}, {20, 29}},
                                                         {{10, 12}, {2, 4}},
                                                         {{3, 6}, {5, 9}},
                                                         {{3, 6}, {7, 9}},
                                                         {{3, 9}, {4, 5}}};
  for (auto const& ranges : cases) {
    SkippedPositions const skipped(ranges);
    std::vector<std::uint64_t> kept;
    for (std::uint64_t p = 0; p < 60; ++p) {
      EXPECT_EQ(skipped.kept_before(p), kept.size()) << p;
      bool inside = false;
      for (auto const& range : ranges) inside = inside || (p >= range.first && p <= range.last);
      if (!inside) kept.push_back(p);
    }
    for (std::uint64_t n = 0; n < kept.size(); ++n) EXPECT_EQ(skipped.position(n), kept[n]);
  }
}

TEST(SkippedPositionsTest, RangesThatMeetAreOne) {
  EXPECT_EQ(SkippedPositions({{7, 9}, {3, 6}, {20, 20}, {8, 12}}).ranges().size(), 2U);
  EXPECT_EQ(SkippedPositions({{7, 9}, {3, 6}, {20, 20}, {8, 12}}).ranges()[0].last, 12U);
  EXPECT_TRUE(says(data_error_of([] { SkippedPositions({{9, 7}}); }), {"9-7", "backwards"}));
}

std::size_t rows_of(std::vector<PairEntry> const& pairs, std::vector<std::uint64_t> const& order, std::size_t first,
                    std::size_t count) {
  std::set<std::int64_t> rows;
  for (auto i = first; i < first + count; ++i) rows.insert({pairs[order[i]].x0, pairs[order[i]].x1});
  return rows.size();
}

TEST(NearPairsTest, AnAlignedRunOfASquareTouchesItsSides) {
  std::vector<PairEntry> pairs;
  for (std::int64_t a = 0; a < 64; ++a)
    for (std::int64_t b = 0; b < 64; ++b) pairs.push_back({a, b});
  auto const order = near_pairs(pairs);
  EXPECT_EQ(std::set<std::uint64_t>(order.begin(), order.end()).size(), pairs.size());
  for (std::size_t side = 1; side <= 64; side *= 2)
    for (std::size_t first = 0; first < pairs.size(); first += side * side)
      ASSERT_LE(rows_of(pairs, order, first, side * side), 2 * side);
}

TEST(NearPairsTest, RunsOfWholeObjectsTouchFewRows) {
  // Ten objects under 100 lights each, every ordered pair of two lights, as encode writes them.
  std::vector<PairEntry> pairs;
  for (std::int64_t object = 0; object < 10; ++object)
    for (std::int64_t a = 0; a < 100; ++a)
      for (std::int64_t b = 0; b < 100; ++b)
        if (a != b) pairs.push_back({100 * object + a, 100 * object + b});
  auto const near = near_pairs(pairs);
  std::vector<std::uint64_t> listed(pairs.size());
  for (std::size_t i = 0; i < listed.size(); ++i) listed[i] = i;
  std::size_t most = 0, rows = 0, rows_listed = 0;
  for (std::size_t first = 0; first + 256 <= pairs.size(); first += 64) {
    auto const here = rows_of(pairs, near, first, 256);
    most = std::max(most, here);
    rows += here;
    rows_listed += rows_of(pairs, listed, first, 256);
  }
  EXPECT_LT(2 * rows, rows_listed);
  EXPECT_LE(most, 96U);  // a run of 256 meets three squares of 16 x 16, their edges cut by the object's
}

// Of folder f: byte = f, number = the position asked for.
class Numbered : public BatchSource {
 public:
  explicit Numbered(int folder, std::int64_t width = 1, DType dtype = DType::u8)
      : folder_(folder), fields_{{"byte", dtype, {width}}, {"number", DType::i64, {1}}} {}
  std::vector<Field> const& fields() const override { return fields_; }
  void fill(std::uint64_t position, std::vector<std::byte*> const& out) const override {
    *out[0] = static_cast<std::byte>(folder_);
    std::memcpy(out[1], &position, sizeof(position));
  }

 private:
  int folder_;
  std::vector<Field> fields_;
};

TEST(OrderedSourceTest, PositionsNumbersAndFoldersGoTogether) {
  auto const mixture = std::make_shared<Mixture const>(std::vector<std::uint64_t>{2, 1});
  SkippedPositions const skipped({{2, 6}, {9, 9}});
  auto const source = make_ordered_source({{"a", std::make_shared<Numbered>(0)}, {"b", std::make_shared<Numbered>(1)}},
                                          mixture, skipped);
  ASSERT_EQ(source->fields().size(), 4U);
  EXPECT_EQ(source->fields()[2].name, "position");
  EXPECT_EQ(source->fields()[3].name, "folder");
  for (std::uint64_t n = 0; n < 30; ++n) {
    std::byte byte{};
    std::int64_t number = -1, position = -1, folder = -1;
    auto const bytes = [](std::int64_t& value) { return reinterpret_cast<std::byte*>(&value); };
    source->fill(n, {&byte, bytes(number), bytes(position), bytes(folder)});
    EXPECT_EQ(static_cast<std::uint64_t>(position), skipped.position(n));
    EXPECT_EQ(number, position);  // what draws views
    EXPECT_EQ(folder, static_cast<std::int64_t>(mixture->at(skipped.position(n)).folder));
    EXPECT_EQ(static_cast<int>(byte), folder);
  }
}

TEST(OrderedSourceTest, FoldersOfOtherSizesAreAnErrorNamingBoth) {
  auto const mixture = std::make_shared<Mixture const>(std::vector<std::uint64_t>{1, 1});
  auto const error = [&](std::shared_ptr<BatchSource const> other) {
    return data_error_of([&] {
      make_ordered_source({{"first", std::make_shared<Numbered>(0)}, {"second", std::move(other)}}, mixture, {});
    });
  };
  EXPECT_TRUE(says(error(std::make_shared<Numbered>(1, 3)), {"byte", "u8 [1] in first", "u8 [3] in second"}));
  EXPECT_TRUE(says(error(std::make_shared<Numbered>(1, 1, DType::f16)), {"u8 [1] in first", "f16 [1] in second"}));
}

TEST(SampleLogTest, OneLineASampleAndLaterRunsAppend) {
  TemporaryFolder const folder;
  auto const path = folder / "samples/rank.tsv";
  auto const source = make_ordered_source({{"a", std::make_shared<Numbered>(0)}}, nullptr, SkippedPositions({{1, 1}}));
  for (int run = 0; run < 2; ++run) {
    SampleLog log(path);
    Loader loader(source, [](std::uint64_t n) { return std::pair(2 * n, std::int64_t{2}); }, 2, {});
    auto const batch = loader.next();
    log.write(batch, *source);
    loader.release(batch);
  }
  auto const text = file_bytes(path);
  auto const half = text.substr(0, text.size() / 2);
  EXPECT_EQ(text, half + half);
  EXPECT_EQ(half.substr(0, 6), "0\t0\t0\t");
  EXPECT_EQ(half.substr(half.find('\n') + 1, 6), "2\t0\t0\t");  // position 1 is skipped
  EXPECT_EQ(half.size(), 2 * (6 + 16 + 1U));
  put_bytes(folder / "file", "");
  EXPECT_TRUE(says(data_error_of([&] { SampleLog(folder / "file/rank.tsv"); }), {"file/rank.tsv"}));
}

}  // namespace
}  // namespace duoflow::data::testing
