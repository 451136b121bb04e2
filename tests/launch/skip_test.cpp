// The skip policy (DESIGN section 2) in every mode: one number of one rank that is not finite, in a loss or in a
// gradient, keeps all ranks from the update, and afterwards nothing is left of it.

#include <cctype>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/thread_backend.h"
#include "tests/launch/tiny_run.h"

namespace duoflow::launch {
namespace {

constexpr int kRanks = 4, kFaultyRank = 2;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

enum class Fault { none, latent, picture, first_editor_gradient, last_renderer_gradient };

struct Mode {
  char const* name;
  int zero;
  bool reproducible, bf16;
};
constexpr Mode kModes[] = {{"default", 0, false, false},     {"ZeRO-1", 1, false, false},
                           {"bf16", 0, false, true},         {"ZeRO-1 in bf16", 1, false, true},
                           {"reproducible", 0, true, false}, {"reproducible ZeRO-1", 1, true, false}};

TinyShape shape_of(Mode const& mode, bool accumulates, char const* statistics) {
  // Virtual shards are powers of two.
  std::int64_t const micro_steps = !accumulates ? 1 : mode.reproducible ? 2 : 3;
  TinyShape shape{kRanks * micro_steps, micro_steps};
  shape.zero = mode.zero, shape.reproducible = mode.reproducible, shape.bf16 = mode.bf16;
  shape.statistics = statistics;
  shape.warmup = 8;  // the rate rises with every update that is made
  shape.ema = 0.9;
  return shape;
}

// Everything that an update moves; last what the optimizer keeps, which with ZeRO-1 is another part on every rank.
std::vector<at::Tensor> state_of(TinyRun& run) {
  std::vector<at::Tensor> state{run.optimizer().update_count()};
  for (auto const& [name, tensor] : run.weighting().state()) state.push_back(tensor);
  for (auto const& parameter : run.model().parameters()) state.push_back(parameter.tensor.detach());
  state.insert(state.end(), {run.optimizer().exp_avg(), run.optimizer().exp_avg_sq(), run.optimizer().average()});
  for (auto& tensor : state) tensor = tensor.clone();
  return state;
}

bool same_bits(std::vector<at::Tensor> const& a, std::vector<at::Tensor> const& b) {
  bool same = a.size() == b.size();
  for (std::size_t i = 0; same && i < a.size(); ++i) same = at::equal(a[i], b[i]);
  return same;
}

model::JointBatch batch_with(Fault fault, TinyShape const& shape, std::int64_t update) {
  auto batch = tiny_batch(shape.global_batch, update);
  auto const sample = kFaultyRank * shape.micro_steps;  // its rank's first: of an early micro-step
  if (fault == Fault::latent) batch.x1[sample].view({-1})[3].fill_(kNaN);
  if (fault == Fault::picture) batch.target_image[sample].view({-1})[5].fill_(kInf);
  return batch;
}

// While *on, one element of one gradient of this rank is not finite.
void make_faulty(TinyRun& run, Fault fault, std::shared_ptr<bool> const& on) {
  bool const first = fault == Fault::first_editor_gradient;
  at::Tensor chosen;
  for (auto const& parameter : run.model().parameters()) {
    auto const part = first ? model::Part::editor : model::Part::renderer;
    if (parameter.part == part && parameter.tensor.requires_grad() && !(first && chosen.defined()))
      chosen = parameter.tensor;
  }
  chosen.register_hook([first, on](at::Tensor const& gradient) {
    if (!*on) return gradient;
    auto bad = gradient.clone();
    bad.view({-1})[first ? 0 : -1].fill_(first ? kNaN : -kInf);
    return bad;
  });
}

struct Outcome {
  std::vector<at::Tensor> before, after, next;  // around the faulty update, and after the healthy one that follows
  bool skipped = false, next_skipped = false;
  float rate = 0, next_rate = 0;
  double bad_losses = 0;
};

// By rank. Fault::none: the same healthy updates without one between them.
std::vector<Outcome> run_with(Fault fault, TinyShape const& shape) {
  std::vector<Outcome> outcomes(kRanks);
  dist::run_ranks(kRanks, [&](dist::Communicator const& group) {
    auto& outcome = outcomes[static_cast<std::size_t>(group.rank())];
    TinyRun run(group, shape);
    auto const on = std::make_shared<bool>(false);
    bool const in_gradient = fault == Fault::first_editor_gradient || fault == Fault::last_renderer_gradient;
    if (in_gradient && group.rank() == kFaultyRank) make_faulty(run, fault, on);
    for (int i = 0; i < 2; ++i) EXPECT_FALSE(run.update(tiny_batch(shape.global_batch, i)));
    run.settle();
    outcome.before = state_of(run);
    if (fault != Fault::none) {
      *on = true;
      outcome.skipped = run.update(batch_with(fault, shape, 2));
      outcome.rate = run.rate().item<float>();
      outcome.bad_losses = run.statistics()[model::kNonFinite].item<double>();
      run.settle();
      outcome.after = state_of(run);
      *on = false;
    }
    outcome.next_skipped = run.update(tiny_batch(shape.global_batch, 3));
    outcome.next_rate = run.rate().item<float>();
    run.settle();
    outcome.next = state_of(run);
  });
  return outcomes;
}

void expect_skipped_by_all(Fault fault, std::vector<Outcome> const& outcomes, std::vector<Outcome> const& without) {
  bool const in_loss = fault == Fault::latent || fault == Fault::picture;
  for (std::size_t rank = 0; rank < kRanks; ++rank) {
    SCOPED_TRACE("rank " + std::to_string(rank));
    auto const& outcome = outcomes[rank];
    EXPECT_TRUE(outcome.skipped);
    EXPECT_EQ(outcome.bad_losses, in_loss ? 1 : 0);
    EXPECT_TRUE(same_bits(outcome.after, outcome.before)) << "the skipped update moved something";
    EXPECT_FALSE(outcome.next_skipped);
    EXPECT_EQ(outcome.next_rate, outcome.rate);  // the schedule stood still
    EXPECT_FLOAT_EQ(outcome.rate, 1e-2F * 2 / 8);
    EXPECT_FALSE(same_bits(outcome.next, outcome.before));
    EXPECT_TRUE(same_bits(outcome.next, without[rank].next)) << "the update after it is another one";
    for (std::size_t i = 0; i + 3 < outcome.next.size(); ++i) {
      EXPECT_TRUE(at::equal(outcome.after[i], outcomes.front().after[i])) << "replicas differ";
      EXPECT_TRUE(at::equal(outcome.next[i], outcomes.front().next[i])) << "replicas differ";
    }
  }
}

class SkipTest : public ::testing::TestWithParam<Mode> {};

TEST_P(SkipTest, OneFaultOfOneRankSkipsTheUpdateOnAllAndLeavesNothingBehind) {
  for (auto const* statistics : {"current", "lagged"})
    for (bool const accumulates : {false, true}) {
      auto const shape = shape_of(GetParam(), accumulates, statistics);
      auto const without = run_with(Fault::none, shape);
      for (auto const fault :
           {Fault::latent, Fault::picture, Fault::first_editor_gradient, Fault::last_renderer_gradient}) {
        SCOPED_TRACE(std::string(GetParam().name) + ", K = " + std::to_string(shape.micro_steps) + ", " + statistics +
                     ", fault " + std::to_string(static_cast<int>(fault)));
        expect_skipped_by_all(fault, run_with(fault, shape), without);
      }
    }
}

std::string name_of(::testing::TestParamInfo<Mode> const& info) {
  std::string name = info.param.name;
  std::erase_if(name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; });
  return name;
}
INSTANTIATE_TEST_SUITE_P(Modes, SkipTest, ::testing::ValuesIn(kModes), name_of);

// The weightings whose state or way into the gradients is their own. Those that go by the step's number are left out:
// a skipped step counts.
TEST(WeightingSkipTest, OneFaultLeavesNothingBehindInAnyWeighting) {
  struct Variant {
    char const *weighting, *statistics, *gradient_space;
  };
  for (auto const& [weighting, statistics, space] :
       {Variant{"normalized_each", "current", "v_pred"}, Variant{"normalized_each", "lagged", "v_pred"},
        Variant{"uncertainty", "current", "v_pred"}, Variant{"gradient_balance", "current", "v_pred"},
        Variant{"gradient_balance", "lagged", "v_pred"}, Variant{"gradient_balance", "exposed", "v_pred"},
        Variant{"gradient_balance", "current", "parameters"}, Variant{"pcgrad", "current", "v_pred"},
        Variant{"separate_graphs", "current", "v_pred"}})
    for (auto const& mode : {kModes[0], kModes[1]}) {
      auto shape = shape_of(mode, /*accumulates=*/true, statistics);
      shape.weighting = weighting, shape.gradient_space = space, shape.gradient_interval = 1;
      auto const without = run_with(Fault::none, shape);
      for (auto const fault : {Fault::latent, Fault::first_editor_gradient, Fault::last_renderer_gradient}) {
        SCOPED_TRACE(std::string(weighting) + ", " + statistics + ", " + space + ", " + mode.name + ", fault " +
                     std::to_string(static_cast<int>(fault)));
        expect_skipped_by_all(fault, run_with(fault, shape), without);
      }
    }
}

// grad_clip_norm times allowed_gradnorm_factor bounds the norm before clipping: of all ranks' gradients together.
TEST(GradientNormBoundTest, AnUpdateBeyondTheBoundIsSkippedByAllAndOneWithinItIsClipped) {
  for (int const ranks : {1, 4}) {
    TinyShape shape{8, 1};
    shape.clip = 0;
    auto const batch = tiny_batch(shape.global_batch, 0);
    float norm = 0;
    dist::run_ranks(ranks, [&](dist::Communicator const& group) {
      TinyRun run(group, shape);
      run.update(batch);
      if (group.rank() == 0) norm = run.gradients().norm().item<float>();
    });
    ASSERT_GT(norm, 0);
    for (bool const within : {true, false}) {
      shape.clip = norm / 10;
      shape.allowed = within ? 10.1 : 9.9;
      dist::run_ranks(ranks, [&](dist::Communicator const& group) {
        TinyRun run(group, shape);
        auto const before = run.buffer().parameters().clone();
        EXPECT_EQ(run.update(batch), !within) << ranks;
        EXPECT_EQ(at::equal(run.buffer().parameters(), before), !within);
        EXPECT_NEAR(run.norm().item<float>(), norm, 1e-5 * norm);  // as it was before clipping
      });
    }
  }
}

}  // namespace
}  // namespace duoflow::launch
