#include "model/tokenizers.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace duoflow::model {

at::Tensor patchify(at::Tensor const& pictures, std::int64_t patch_size) {
  auto const p = patch_size, height = pictures.size(3), width = pictures.size(4);
  if (height % p != 0 || width % p != 0) {
    throw std::invalid_argument(fmt::format("a {}x{} picture cannot be cut into patches of {} (both sides must be multiples), "
                                            "change the picture size or patch_size", height, width, p));
  }
  auto const b = pictures.size(0), v = pictures.size(1), c = pictures.size(2), rows = height / p, columns = width / p;
  return pictures.reshape({b, v, c, rows, p, columns, p}).permute({0, 1, 3, 5, 4, 6, 2}).reshape({b, v * rows * columns, p * p * c});
}

at::Tensor unpatchify(at::Tensor const& tokens, std::int64_t views, std::int64_t height, std::int64_t width, std::int64_t patch_size) {
  auto const p = patch_size, b = tokens.size(0);
  return tokens.reshape({b, views, height / p, width / p, p, p, 3}).permute({0, 1, 6, 2, 4, 3, 5}).reshape({b, views, 3, height, width});
}

at::Tensor tokenize(at::Tensor const& pictures, at::Tensor const& weight_DxF, std::int64_t patch_size) {
  return at::linear(patchify(pictures.to(at::kFloat), patch_size), weight_DxF);
}

}  // namespace duoflow::model
