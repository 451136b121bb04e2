#pragma once
// The gradient of a batch split over ranks and micro-steps, for threads and for mpirun.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/gradient_reducer.h"
#include "tests/dist/small_model.h"

namespace duoflow::dist {

inline std::map<std::string, at::Tensor> full_batch_gradients(std::int64_t samples) {
  SmallModel const model;
  torch::autograd::backward({model.loss(small_batch(samples))}, {});
  std::map<std::string, at::Tensor> gradients;
  for (std::string const& name : used_by_small_model()) {
    gradients[name] = model.get(name).grad();
  }
  return gradients;
}

// Every rank takes samples/size of the samples (the last ones too few or none), in micro_steps micro-steps.
inline void expect_sum_over_ranks_equals_full_batch(Communicator const& group, int micro_steps, double bucket_mib) {
  constexpr std::int64_t samples = 13;
  SmallModel const model;
  FlatBuffer buffer(model.parameters, {bucket_mib, bucket_mib, 1});
  GradientReducer reducer(group, buffer);
  std::int64_t const parts = std::int64_t{group.size()} * micro_steps;
  at::Tensor const batch = small_batch(samples);
  for (int update = 1; update <= 2; ++update) {
    reducer.zero();
    for (int micro_step = 0; micro_step < micro_steps; ++micro_step) {
      std::int64_t const part = std::int64_t{group.rank()} * micro_steps + micro_step;
      std::int64_t const begin = samples * part / parts, end = samples * (part + 1) / parts;
      if (micro_step == micro_steps - 1) {
        reducer.arm(used_by_small_model());
      }
      torch::autograd::backward({model.loss(batch.narrow(0, begin, end - begin))}, {});
    }
    reducer.finish();
    for (auto const& [name, expected] : full_batch_gradients(samples)) {
      EXPECT_TRUE(at::allclose(model.get(name).grad(), expected, 1e-5, 1e-5)) << name << " on rank " << group.rank();
    }
    EXPECT_EQ(model.get("unused").grad().abs().sum().item<float>(), 0);
    EXPECT_LE(reducer.collectives_started(), update * reducer.bucket_count());
  }
  EXPECT_EQ(reducer.collectives_started() % 2, 0);  // as many in the second update as in the first
}

}  // namespace duoflow::dist
