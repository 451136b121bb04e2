// Which attention a run takes, on a device that has several.

#include "launch/attention_choice.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace duoflow::launch {
namespace {

TEST(CudaAttentionChoiceTest, OneIsMeasuredAndTakenAndAttentionIsTheSame) {
  Config config;
  config.model.compute = model::ComputeType::bf16;
  c10::Device const device(c10::kCUDA, 0);
  auto const tensor = [&] { return at::randn({4, 2, 96, 64}, at::TensorOptions(at::kBFloat16).device(device)); };
  at::Tensor const q = tensor(), k = tensor(), v = tensor();
  at::Tensor const exact = at::matmul(at::softmax(at::matmul(q.to(at::kFloat), k.to(at::kFloat).transpose(-2, -1)) / 8, -1), v.to(at::kFloat));
  for (auto const* wanted : {"measured", "flash", "efficient"}) {
    config.training.attention_backend = wanted;
    auto const line = choose_attention(dist::Communicator(), config, {4, 2, 96, 64}, device);
    EXPECT_NE(line.find("attention by"), std::string::npos) << line;
    at::Tensor const found = at::scaled_dot_product_attention(q, k, v).to(at::kFloat);
    EXPECT_LT((found - exact).abs().max().item<float>(), 0.02) << line;
  }
}

}  // namespace
}  // namespace duoflow::launch
