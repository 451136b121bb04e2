#include "model/tokenizers.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace duoflow::model {
namespace {

TEST(PatchifyTest, OrdersViewsThenPatchesThenRowColumnChannel) {
  std::int64_t const b = 2, v = 3, c = 5, h = 4, w = 6, p = 2;
  at::Tensor const pictures = at::arange(b * v * c * h * w).view({b, v, c, h, w});
  at::Tensor const tokens = patchify(pictures, p);
  ASSERT_EQ(tokens.sizes(), at::IntArrayRef({b, v * 6, p * p * c}));
  // sample 1, view 2, patch row 1, patch column 2, inside: row 1, column 0, channel 3
  EXPECT_EQ(tokens[1][2 * 6 + 1 * 3 + 2][(1 * p + 0) * c + 3].item<std::int64_t>(), pictures[1][2][3][1 * p + 1][2 * p + 0].item<std::int64_t>());
}

TEST(PatchifyTest, UnpatchifyUndoesIt) {
  at::Tensor const pictures = at::arange(2 * 3 * 3 * 4 * 8).view({2, 3, 3, 4, 8});
  EXPECT_TRUE(at::equal(unpatchify(patchify(pictures, 2), 3, 4, 8, 2), pictures));
}

TEST(PatchifyTest, PictureThatPatchesDoNotTileIsAnError) {
  EXPECT_THROW(patchify(at::zeros({1, 1, 3, 8, 9}), 4), std::invalid_argument);
}

}  // namespace
}  // namespace duoflow::model
