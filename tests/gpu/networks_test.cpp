// The networks on the device: fp32 against the CPU, bf16 and every attention path against fp32.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "model/scene_model.h"
#include "tests/gpu/cuda_world.h"
#include "tests/launch/tiny_run.h"

namespace duoflow::model {
namespace {

struct Outputs {
  at::Tensor velocity, image;
};

Outputs run(at::Device device, ComputeType compute, AttentionPath attention) {
  at::NoGradGuard const no_grad;
  auto options = launch::tiny_options();
  options.compute = compute;
  options.attention = attention;
  SceneModel model(options, 5);
  std::vector<std::pair<std::string, at::Tensor>> weights;
  auto const tiny = launch::tiny_model(true);
  for (auto const& parameter : tiny.parameters()) weights.emplace_back(parameter.name, parameter.tensor.detach());
  model.load(weights);
  model.to(device);
  auto const batch = launch::tiny_batch(4, 0, device);
  return {model.velocity(batch.x0, batch.t, model.light_tokens(batch.env)), model.render(batch.x1, batch.target_rays)};
}

TEST(CudaNetworks, Fp32IsTheCpus) {
  auto const cpu = run(at::kCPU, ComputeType::fp32, AttentionPath::sdpa);
  for (auto const path : {AttentionPath::automatic, AttentionPath::sdpa, AttentionPath::matmul}) {
    auto const cuda = run(at::kCUDA, ComputeType::fp32, path);
    EXPECT_LT(relative_distance(cuda.velocity, cpu.velocity), 1e-5);
    EXPECT_LT(relative_distance(cuda.image, cpu.image), 1e-5);
  }
}

TEST(CudaNetworks, Bf16IsNearFp32OnEveryAttentionPath) {
  auto const exact = run(at::kCUDA, ComputeType::fp32, AttentionPath::matmul);
  for (auto const path : {AttentionPath::automatic, AttentionPath::sdpa, AttentionPath::matmul}) {
    auto const cuda = run(at::kCUDA, ComputeType::bf16, path);
    EXPECT_EQ(cuda.velocity.scalar_type(), at::kFloat);
    EXPECT_LT(relative_distance(cuda.velocity, exact.velocity), 0.05);
    EXPECT_LT(relative_distance(cuda.image, exact.image), 0.05);
  }
}

}  // namespace
}  // namespace duoflow::model
