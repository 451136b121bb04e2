#pragma once
// How much memory the tensors of one joint micro-step take at most, beside the model, its gradients and the batch.

#include <algorithm>
#include <cstdint>
#include <memory>

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "launch/config.h"
#include "launch/run_setup.h"
#include "model/joint_step.h"
#include "model/loss/weighting.h"

namespace duoflow::launch {

// Of the tensors on the CPU made under a c10::DebugInfoGuard with it, as the allocator reports them: bytes, to the
// last.
class PeakMemory : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, std::int64_t bytes, std::size_t, std::size_t, c10::Device) override {
    now_ += bytes;
    peak_ = std::max(peak_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  std::int64_t peak() const { return peak_; }

 private:
  std::int64_t now_ = 0, peak_ = 0;
};

inline model::JointBatch random_batch(Config const& config) {
  auto const& m = config.model;
  auto const samples = config.training.batch_size_per_gpu, views = config.training.num_target_views;
  model::JointBatch batch;
  batch.x0 = at::randn({samples, m.n_latent_vectors, m.d});
  batch.x1 = at::randn({samples, m.n_latent_vectors, m.d});
  batch.t = at::rand({samples});
  batch.env = at::rand({samples, 1, 9, m.env_height, 2 * m.env_height});
  batch.target_rays = at::randn({samples, views, 6, m.image_size, m.image_size});
  batch.target_image = at::rand({samples, views, 3, m.image_size, m.image_size});
  return batch;
}

// One joint micro-step as training runs it: editor, cut, renderer and back, editor back, with the graph before the cut
// kept. On random batches, on the CPU.
class OneJointStep {
 public:
  explicit OneJointStep(Config const& config)
      : model_(make_model(config, at::kCPU, /*resumes=*/false)),
        batch_(random_batch(config)),
        weighting_(model::make_weighting(weighting_options(config), at::kCPU)),
        step_(model_, loss_options(config), *weighting_) {
    for (auto const& parameter : model_.parameters())
      if (parameter.tensor.requires_grad()) parameter.tensor.mutable_grad() = at::zeros_like(parameter.tensor);
    model_.round_weights({}, running_parts(config));  // training has them too, before its first micro-step
  }

  void run() {
    at::Tensor sums;
    auto const cut =
        step_.run_to_cut(batch_, 0, batch_.t.size(0), /*keep_graph=*/true, [&](at::Tensor const& local) { sums = local; });
    step_.run_from_cut(batch_, cut, step_.combine(sums, 0), cut_sums_);
  }

 private:
  model::SceneModel model_;
  model::JointBatch batch_;
  std::unique_ptr<model::Weighting> weighting_;
  model::JointStep step_;
  at::Tensor cut_sums_ = at::zeros({3}, at::kDouble);
};

inline std::int64_t peak_of_joint_step(Config const& config) {  // bytes
  OneJointStep step(config);
  auto const peak = std::make_shared<PeakMemory>();
  c10::DebugInfoGuard const guard(c10::DebugInfoKind::PROFILER_STATE, peak);
  step.run();
  return peak->peak();
}

}  // namespace duoflow::launch
