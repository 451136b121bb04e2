// Any split of an update's samples over ranks and micro-steps is the update of one process that holds them all:
// gradients, loss weights and the trajectory, crossed with recomputation, with both `statistics`, with ZeRO-1 and with
// a resume.

#include <algorithm>
#include <functional>
#include <map>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "dist/checkpoint/checkpoint.h"
#include "dist/thread_backend.h"
#include "launch/run_setup.h"
#include "launch/run_state.h"
#include "tests/launch/scratch_folder.h"
#include "tests/launch/trajectory.h"

namespace duoflow::launch {
namespace {

constexpr int kUpdates = 4, kResumedAfter = 2;
// One process, K = 1: what tests below compare with, held to the written-down objective at every update. w is the EMA
// of L_r / L_v, and with `lagged` the one that the update before has left, 1 at first.
Trajectory one_process(std::int64_t global_batch, std::string const& statistics) {
  TinyShape shape{global_batch};
  shape.statistics = statistics;
  auto const config = tiny_config(shape, 1);
  auto const losses = loss_options(config);
  TinyRun run({}, shape);
  Trajectory trajectory;
  double smooth = 0, standing = 1;
  for (int i = 0; i < kUpdates; ++i) {
    auto const batch = tiny_batch(global_batch, i);
    auto const [velocity, render, v] = whole_batch_losses(run.model(), batch);
    auto const raw = render.item<double>() / (velocity.item<double>() + 1e-8);
    smooth = i == 0 ? raw : config.flow.weight_ema * smooth + (1 - config.flow.weight_ema) * raw;
    auto const weight = statistics == "lagged" ? standing : smooth;
    standing = smooth;
    run.reducer().zero();
    torch::autograd::backward({losses.lambda_v * weight * velocity + losses.lambda_r * render});
    auto const expected = unpadded(run.buffer(), run.buffer().gradients());
    EXPECT_FALSE(run.update(batch));
    trajectory.note_update(run);
    SCOPED_TRACE("one process, update " + std::to_string(i));
    expect_objective(trajectory, expected, weight, 1);
  }
  return trajectory;
}

Trajectory const& expected_of(TinyShape const& shape) {
  static std::map<std::pair<std::int64_t, std::string>, Trajectory> made;
  auto const key = std::pair(shape.global_batch, shape.statistics);
  if (made.count(key) == 0) made.emplace(key, one_process(shape.global_batch, shape.statistics));
  return made.at(key);
}

// One reduction of each bucket and one of the statistics, however many micro-steps: on this rank, in this update.
void expect_one_reduction(TinyRun& run, int size, int zero, std::int64_t handed_over_before) {
  auto const count = [&](char const* event) { return std::count(run.events().begin(), run.events().end(), event); };
  auto const buckets = run.reducer().bucket_count();
  EXPECT_GT(buckets, 1);
  EXPECT_EQ(run.reducer().collectives_started() - handed_over_before, buckets);
  EXPECT_EQ(count(kBucketStarted), zero > 0 ? 0 : buckets);
  EXPECT_EQ(count("reduce_scatter"), zero > 0 ? buckets : 0);
  bool const shares = zero > 0 && size > 1;
  EXPECT_EQ(count("all_gather"), shares ? buckets : 0);
  EXPECT_EQ(count(kStatisticsStarted), shares ? 2 : 1);  // the squares of the norm
}

RunTensors tensors_of(TinyRun& run) { return {run.model(), run.buffer(), run.optimizer(), run.weighting()}; }

struct Segment {
  int first = 0, last = kUpdates;
  std::string read, write;  // checkpoint folder to begin with; RUN/checkpoints to leave one in after kResumedAfter
};

// Updates [first, last) on `size` ranks, which all must find the same.
Trajectory run_updates(int size, TinyShape const& shape, Segment const& segment) {
  auto config = tiny_config(shape, size);
  config.flow.normalize_losses = true;  // as loading a config would leave it
  std::vector<Trajectory> found(static_cast<std::size_t>(size));
  dist::run_ranks(size, [&](dist::Communicator const& group) {
    TinyRun run(group, shape, segment.first);
    if (group.rank() == 0) {
      EXPECT_EQ(run.plan().micro_steps, shape.micro_steps);
    }
    if (!segment.read.empty())
      unpack_run(dist::read_checkpoint(segment.read), tensors_of(run), config, "data", nullptr);
    for (int i = segment.first; i < segment.last; ++i) {
      run.events().clear();
      auto const handed_over = run.reducer().collectives_started();
      EXPECT_FALSE(run.update(tiny_batch(shape.global_batch, i)));
      expect_one_reduction(run, size, shape.zero, handed_over);
      found[static_cast<std::size_t>(group.rank())].note_update(run);
      if (i + 1 == kResumedAfter && !segment.write.empty()) {
        dist::CheckpointWriterOptions options;
        options.directory = segment.write;
        Counters const counters{i + 1, 0, 0, shape.global_batch, "data"};
        dist::write_checkpoint(group, options, pack_run(tensors_of(run), counters, config));
      }
    }
  });
  for (auto const& rank : found) {
    SCOPED_TRACE("rank against rank 0");
    expect_same_bits(rank, found.front());
  }
  return found.front();
}

std::string describe(int size, TinyShape const& shape) {
  return std::to_string(size) + " ranks, G = " + std::to_string(shape.global_batch) +
         ", K = " + std::to_string(shape.micro_steps) + ", " + shape.statistics +
         (shape.recompute ? ", recomputed" : "") + (shape.zero > 0 ? ", ZeRO-1" : "");
}

// G so that rank 0 makes K micro-steps, and where ranks do not divide it another rank fewer, or a smaller last one.
void for_each_cell(int zero, std::function<void(int, TinyShape const&)> const& body) {
  for (int size = 1; size <= 4; ++size)
    for (std::int64_t micro_steps : {1, 3})
      for (std::int64_t global_batch : {3 * size, size == 1 ? 5 : 3 * size - 1})
        for (bool recompute : {false, true})
          for (auto const* statistics : {"current", "lagged"}) {
            TinyShape shape{global_batch, micro_steps};
            shape.zero = zero, shape.recompute = recompute, shape.statistics = statistics;
            SCOPED_TRACE(describe(size, shape));
            body(size, shape);
          }
}

void expect_one_process_resumed_or_not(int size, TinyShape const& shape) {
  ScratchFolder const folder;
  auto const checkpoints = folder.path().string();
  auto const straight = run_updates(size, shape, {0, kUpdates, "", checkpoints});
  expect_close(straight, expected_of(shape));
  auto const checkpoint = dist::resolve_checkpoint(checkpoints);
  auto const resumed = run_updates(size, shape, {kResumedAfter, kUpdates, checkpoint, ""});
  expect_same_bits(resumed, straight, kResumedAfter);
}

TEST(AccumulationTest, EverySplitIsOneProcessResumedOrNot) { for_each_cell(0, expect_one_process_resumed_or_not); }

TEST(AccumulationTest, EverySplitIsOneProcessWithZeroToo) { for_each_cell(1, expect_one_process_resumed_or_not); }

TEST(AccumulationTest, ARunMayGoOnWithAnotherSplit) {
  for (int zero : {0, 1})
    for (auto const* statistics : {"current", "lagged"}) {
      TinyShape shape{12, 3};
      shape.statistics = statistics;
      ScratchFolder const folder;
      auto before = shape;
      before.zero = 1 - zero;
      run_updates(4, before, {0, kResumedAfter, "", folder.path().string()});
      shape.zero = zero, shape.micro_steps = 1;
      for (int size = 1; size <= 3; ++size) {
        SCOPED_TRACE(describe(size, shape) + " after 4 ranks");
        auto const resumed =
            run_updates(size, shape, {kResumedAfter, kUpdates, dist::resolve_checkpoint(folder.path().string()), ""});
        expect_close(resumed, expected_of(shape), kResumedAfter);
      }
    }
}

TEST(AccumulationTest, RecomputedBlocksHaveTheBitsOfKeptOnes) {
  for (std::int64_t micro_steps : {1, 3}) {
    TinyShape kept{5, micro_steps}, recomputed = kept;
    recomputed.recompute = true;
    expect_same_bits(run_updates(2, recomputed, {}), run_updates(2, kept, {}));
  }
}

// A bucket must not leave with the first chunk's gradients.
TEST(AccumulationTest, ViewsInChunksAreTheSameUpdateWithOneReduction) {
  for (int size = 1; size <= 4; ++size)
    for (std::int64_t micro_steps : {1, 3})
      for (int zero : {0, 1})
        for (auto const* statistics : {"current", "lagged"}) {
          TinyShape shape{3 * size, micro_steps};
          shape.zero = zero, shape.statistics = statistics, shape.view_chunk = 1;
          SCOPED_TRACE(describe(size, shape));
          expect_close(run_updates(size, shape, {}), expected_of(shape), 0);
        }
}

}  // namespace
}  // namespace duoflow::launch
