#pragma once
// Tensors to PNG, and grids of pictures with captions.

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/images/image_io.h"

namespace duoflow::launch {

data::Image8 to_image(at::Tensor const& image_3HW);  // [0,1], any device; rounds to 8 bit
// Rows of equally sized pictures, each enlarged by `scale` (nearest), with a caption above each column and left of each
// row.
data::Image8 picture_grid(std::vector<std::vector<data::Image8>> const& rows,
                          std::vector<std::string> const& column_captions, std::vector<std::string> const& row_captions,
                          int scale);
// Error picture: mean absolute difference over channels, x4, from white (none) through orange to dark red.
at::Tensor error_picture(at::Tensor const& image_3HW, at::Tensor const& target_3HW);

}  // namespace duoflow::launch
