#pragma once
// Render loss: a weighted sum of named image terms, per sample. One table of terms, in render.cpp.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

class ImageTerm {
 public:
  virtual ~ImageTerm() = default;
  virtual at::Tensor per_sample(at::Tensor const& image_BT3HW, at::Tensor const& target_BT3HW) const = 0;  // [B] fp32
};
std::unique_ptr<ImageTerm> make_image_term(std::string const& name);  // "mse"; std::invalid_argument listing the names

struct RenderLossOptions {
  double l2_weight = 1, lpips_weight = 0,
         perceptual_weight = 0;  // a non-zero weight of a term that is not there is an error
};

class RenderLoss {
 public:
  // std::invalid_argument for a negative or non-finite weight, or a non-zero one of a term that is not there.
  explicit RenderLoss(RenderLossOptions const& options);

  // True when every weight is zero: the loss is then identically zero and there is no point in rendering.
  bool empty() const { return terms_.empty(); }

  struct Result {
    at::Tensor loss;                                        // [B] weighted sum
    std::vector<std::pair<std::string, at::Tensor>> terms;  // [B] each, unweighted; those of non-zero weight
  };
  // std::invalid_argument naming both shapes where they differ (broadcasting would hide it).
  Result operator()(at::Tensor const& image_BT3HW, at::Tensor const& target_BT3HW) const;

 private:
  std::vector<std::pair<double, std::shared_ptr<ImageTerm>>> terms_;
  std::vector<std::string> names_;
};

}  // namespace duoflow::model
