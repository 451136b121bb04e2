#pragma once
#include <ATen/core/Tensor.h>

namespace duoflow::dist {

// Of contiguous fp32 numbers, in fp64: a scalar on their device, the same bits with any number of threads.
at::Tensor sum_of_squares(at::Tensor const& numbers);

}  // namespace duoflow::dist
