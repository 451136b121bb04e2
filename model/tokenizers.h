#pragma once
// Pictures to tokens and back. Legend: see model/transformer.h.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

// [B,V,C,h,w] -> [B, V h/p w/p, p p C]: views after one another, patches row by row, features of a patch in the order
// (row, column, channel). std::invalid_argument when the patch does not divide the picture.
at::Tensor patchify(at::Tensor const& pictures, std::int64_t patch_size);
// [B, T N, p p 3] (features in the same order) -> [B,T,3,height,width]
at::Tensor unpatchify(at::Tensor const& tokens, std::int64_t views, std::int64_t height, std::int64_t width, std::int64_t patch_size);

// Patches times weight_DxF, in fp32 whatever the compute type: neighbouring rays differ by less than bf16 can hold.
at::Tensor tokenize(at::Tensor const& pictures, at::Tensor const& weight_DxF, std::int64_t patch_size);

}  // namespace duoflow::model
