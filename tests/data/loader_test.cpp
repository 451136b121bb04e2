#include "data/loading/loader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

// Sample p: three bytes that follow from p, and p itself.
class NumberSource : public BatchSource {
 public:
  std::vector<Field> const& fields() const override { return fields_; }
  void fill(std::uint64_t position, std::vector<std::byte*> const& out) const override {
    if (position % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));  // threads finish out of order
    for (std::size_t i = 0; i < 3; ++i) out[0][i] = std::byte{sample_byte(position, i)};
    auto const number = static_cast<std::int64_t>(position);
    std::memcpy(out[1], &number, sizeof(number));
    ++filled;
    for (auto const bad : bad_positions)
      if (position == bad) throw DataError("position " + std::to_string(position) + " is bad");
  }
  std::vector<std::uint64_t> bad_positions;
  mutable std::atomic<int> filled = 0;

 private:
  std::vector<Field> fields_ = {{"bytes", DType::u8, {3}}, {"number", DType::i64, {1}}};
};

Schedule in_steps_of(std::int64_t samples) {
  return [samples](std::uint64_t number) { return std::pair(number * static_cast<std::uint64_t>(samples), samples); };
}

struct Copy {
  std::uint64_t first;
  std::vector<std::byte> bytes;
  std::vector<std::int64_t> numbers;
  bool operator==(Copy const&) const = default;
};

Copy copy_of(Batch const& batch) {
  auto const samples = static_cast<std::size_t>(batch.samples);
  Copy copy{batch.first_position, std::vector<std::byte>(3 * samples), std::vector<std::int64_t>(samples)};
  std::copy_n(batch.fields.at("bytes"), copy.bytes.size(), copy.bytes.data());
  std::copy_n(batch.fields.at("number"), 8 * samples, reinterpret_cast<std::byte*>(copy.numbers.data()));
  return copy;
}

std::vector<Copy> take(Loader& loader, int batches) {
  std::vector<Copy> copies;
  for (int i = 0; i < batches; ++i) {
    auto const batch = loader.next();
    copies.push_back(copy_of(batch));
    loader.release(batch);
  }
  return copies;
}

TEST(LoaderTest, BytesAndOrderDoNotDependOnThreadsOrSlots) {
  std::vector<std::vector<Copy>> runs;
  for (int const threads : {1, 2, 4})
    for (int const slots : {1, 3}) {
      Loader loader(std::make_shared<NumberSource>(), in_steps_of(5), 5, {.threads = threads, .slots = slots, .allocate = {}});
      runs.push_back(take(loader, 30));
    }
  for (std::size_t b = 0; b < 30; ++b)
    for (std::size_t i = 0; i < 5; ++i) {
      ASSERT_EQ(runs[0][b].numbers[i], static_cast<std::int64_t>(5 * b + i));
      ASSERT_EQ(runs[0][b].bytes[3 * i + 1], std::byte{sample_byte(5 * b + i, 1)});
    }
  for (auto const& run : runs) EXPECT_EQ(run, runs[0]);
}

TEST(LoaderTest, RanksTogetherReadTheSameGlobalBatches) {
  std::int64_t const global = 10;
  for (int size = 1; size <= 4; ++size) {
    std::vector<std::vector<std::int64_t>> united(6);
    for (int rank = 0; rank < size; ++rank) {
      auto const block = rank_block(global, rank, size);
      Schedule const schedule = [block](std::uint64_t step) {
        return std::pair(step * static_cast<std::uint64_t>(global) + static_cast<std::uint64_t>(block.first), block.second);
      };
      Loader loader(std::make_shared<NumberSource>(), schedule, global, {.threads = 2, .slots = 2, .allocate = {}});
      auto const mine = take(loader, 6);
      for (std::size_t step = 0; step < 6; ++step)
        united[step].insert(united[step].end(), mine[step].numbers.begin(), mine[step].numbers.end());
    }
    for (std::int64_t step = 0; step < 6; ++step)
      for (std::int64_t i = 0; i < global; ++i)
        EXPECT_EQ(united[static_cast<std::size_t>(step)].at(static_cast<std::size_t>(i)), step * global + i) << size << " ranks";
  }
}

TEST(LoaderTest, AnErrorComesWithItsBatchAndNamesTheLowestSample) {
  for (int const threads : {1, 4}) {
    auto const source = std::make_shared<NumberSource>();
    source->bad_positions = {11, 10};
    Loader loader(source, in_steps_of(4), 4, {.threads = threads, .slots = 4, .allocate = {}});
    EXPECT_EQ(take(loader, 2).back().first, 4U);
    EXPECT_EQ(data_error_of([&] { loader.next(); }), "position 10 is bad");
    auto const after = take(loader, 6);  // the loader goes on behind it, with all its slots
    EXPECT_EQ(after.front().first, 12U);
    EXPECT_EQ(after.back().first, 32U);
  }
}

TEST(LoaderTest, AScheduleBeyondTheSlotsIsAnErrorOfThatBatch) {
  Schedule const schedule = [](std::uint64_t number) { return std::pair(number * 10, number == 1 ? std::int64_t{3} : std::int64_t{2}); };
  Loader loader(std::make_shared<NumberSource>(), schedule, 2, {.threads = 2, .slots = 2, .allocate = {}});
  take(loader, 1);
  EXPECT_TRUE(says(data_error_of([&] { loader.next(); }), {"batch 1", "3 samples", "hold 2"}));
  EXPECT_EQ(take(loader, 1)[0].first, 20U);
}

TEST(LoaderTest, BatchesMayDifferInSizeAndBeEmpty) {
  std::vector<std::pair<std::uint64_t, std::int64_t>> const list = {{0, 3}, {3, 0}, {3, 1}, {4, 0}, {4, 2}};
  Loader loader(std::make_shared<NumberSource>(), [&](std::uint64_t n) { return list[n % 5]; }, 3, {.threads = 3, .slots = 2, .allocate = {}});
  auto const batches = take(loader, 5);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(batches[i].first, list[i].first);
    EXPECT_EQ(batches[i].numbers.size(), static_cast<std::size_t>(list[i].second));
  }
}

TEST(LoaderTest, ReadsAheadOnlyAsFarAsItHasSlots) {
  auto const source = std::make_shared<NumberSource>();
  Loader loader(source, in_steps_of(2), 2, {.threads = 2, .slots = 3, .allocate = {}});
  auto const held = loader.next();
  auto const before = copy_of(held);
  for (int i = 0; i < 200 && source->filled < 6; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(source->filled, 6);
  EXPECT_EQ(copy_of(held), before);
  auto const second = loader.next(), third = loader.next();
  EXPECT_THROW(loader.next(), std::logic_error);  // nothing could ever arrive
  loader.release(second);
  EXPECT_EQ(copy_of(loader.next()).first, 6U);
  EXPECT_THROW(loader.release(Batch{}), std::logic_error);
  loader.release(third);
  EXPECT_THROW(loader.release(third), std::logic_error) << "released twice";
}

TEST(LoaderTest, SlotsAreReused) {
  int allocations = 0;
  Allocate const allocate = [&](std::size_t bytes) {
    ++allocations;
    return std::shared_ptr<std::byte>(new std::byte[bytes], [](std::byte* p) { delete[] p; });
  };
  Loader loader(std::make_shared<NumberSource>(), in_steps_of(2), 2, {.threads = 2, .slots = 3, .allocate = allocate});
  take(loader, 1000);
  EXPECT_EQ(allocations, 3);
}

TEST(LoaderTest, IsDestroyedPromptlyWhileReadersWait) {
  auto const source = std::make_shared<NumberSource>();
  auto const start = std::chrono::steady_clock::now();
  for (int i = 0; i < 50; ++i) {
    Loader loader(source, in_steps_of(2), 2, {.threads = 4, .slots = 1 + i % 3, .allocate = {}});
    if (i % 2 == 0) take(loader, 1);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));  // a hang is minutes
}

TEST(LoaderTest, TheWaitIsMeasured) {
  class SlowSource : public NumberSource {
    void fill(std::uint64_t position, std::vector<std::byte*> const& out) const override {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      NumberSource::fill(position, out);
    }
  };
  Loader loader(std::make_shared<SlowSource>(), in_steps_of(1), 1, {.threads = 1, .slots = 1, .allocate = {}});
  loader.release(loader.next());
  loader.release(loader.next());
  EXPECT_GE(loader.waited_ms(), 15.0);
}

TEST(LoaderTest, SenselessOptionsAreErrors) {
  auto const source = std::make_shared<NumberSource>();
  EXPECT_THROW(Loader(source, in_steps_of(1), 1, {.threads = 0, .slots = 1, .allocate = {}}), DataError);
  EXPECT_THROW(Loader(source, in_steps_of(1), 1, {.threads = 1, .slots = 0, .allocate = {}}), DataError);
  EXPECT_THROW(Loader(source, in_steps_of(1), 0, {.threads = 1, .slots = 1, .allocate = {}}), DataError);
}

}  // namespace
}  // namespace duoflow::data::testing
