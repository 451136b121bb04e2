#include "launch/attention_choice.h"

#include <gtest/gtest.h>

namespace duoflow::launch {
namespace {

TEST(AttentionChoiceTest, TheFastestOfThoseThatCanRunIsTaken) {
  EXPECT_EQ(fastest({{"cudnn", 1.5}, {"flash", 1.25}, {"efficient", 3}}), "flash");
  EXPECT_EQ(fastest({{"cudnn", std::nullopt}, {"flash", std::nullopt}, {"efficient", 3}}), "efficient");
  EXPECT_EQ(fastest({{"cudnn", 2}, {"flash", 2}}), "cudnn");  // the first of equals: the same again
  EXPECT_EQ(fastest({{"cudnn", std::nullopt}}), "");
}

TEST(AttentionChoiceTest, TheShapeIsThatOfTheRenderersAttention) {
  Config config;
  config.model.d = 768, config.model.d_head = 64, config.model.image_size = 256, config.model.patch_size = 8;
  config.model.n_latent_vectors = 3072;
  config.training.num_target_views = 8;
  auto const whole = attention_shape(config, 2);
  EXPECT_EQ(whole.sequences, 16);
  EXPECT_EQ(whole.heads, 12);
  EXPECT_EQ(whole.tokens, 3072 + 1024);
  EXPECT_EQ(whole.d_head, 64);
  config.training.render_view_chunk = 3;
  EXPECT_EQ(attention_shape(config, 2).sequences, 6);
  config.training.render_view_chunk = 20;
  EXPECT_EQ(attention_shape(config, 2).sequences, 16);
}

TEST(AttentionChoiceTest, NothingIsMeasuredBesideCuda) {
  for (auto const* wanted : {"measured", "library", "flash"}) {
    Config config;
    config.training.attention_backend = wanted;
    EXPECT_EQ(choose_attention(dist::Communicator(), config, {1, 1, 8, 16}, c10::Device(c10::kCPU)), "");
  }
}

}  // namespace
}  // namespace duoflow::launch
