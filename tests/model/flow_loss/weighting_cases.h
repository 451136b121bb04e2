#pragma once
// What the tests of the weightings share.

#include <memory>
#include <stdexcept>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "model/loss/weighting.h"

namespace duoflow::model {

inline at::Tensor scalar(double value) { return at::full({}, value, at::kDouble); }

inline std::unique_ptr<Weighting> make(WeightingOptions const& options) { return make_weighting(options, at::kCPU); }

inline void expect_error_with(WeightingOptions const& options, std::string const& words) {
  try {
    make(options);
    FAIL() << "accepted: " << words;
  } catch (std::invalid_argument const& error) {
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

}  // namespace duoflow::model
