#include "launch/run_setup.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "tiny_run.h"

namespace duoflow::launch {
namespace {

// A bucket leaves when its last gradient is there and those before it have left: one early parameter in the wrong place
// keeps everything back until the backward is over.
TEST(RunSetupTest, WhatConditionsAllBlocksOfTheEditorStandsBehindThemInTheBuffer) {
  auto const model = tiny_model(/*train_renderer=*/true, at::kCPU);
  auto const buffer = make_buffer(model, Config(), {}, 1);
  std::vector<std::string> matrices;
  for (auto const& range : buffer.ranges())
    if (range.shape.size() > 1) matrices.push_back(range.name);
  auto const first_of = [&](std::string const& prefix) {
    return std::find_if(matrices.begin(), matrices.end(), [&](auto const& name) { return name.starts_with(prefix); }) - matrices.begin();
  };
  std::vector<std::ptrdiff_t> const places = {first_of("image_token_decoder"),   first_of("transformer_decoder"),
                                              first_of("target_pose_tokenizer"), first_of("editor_velocity_head"),
                                              first_of("transformer_editor"),    first_of("light_embedder"),
                                              first_of("time_embedder"),         first_of("env_tokenizer")};
  EXPECT_TRUE(std::is_sorted(places.begin(), places.end())) << fmt::format("{}", fmt::join(matrices, " "));
  EXPECT_EQ(matrices.back(), "env_tokenizer.1.weight");
}

}  // namespace
}  // namespace duoflow::launch
