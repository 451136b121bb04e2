#pragma once
// Render loss: a weighted sum of named image terms, per sample. One table of terms, in render.cpp.
//
//   loss_i = l2 mse_i + l1 |.|_i + gradient GDL_i + g_i (lpips LPIPS_i + perceptual VGG_i)
// each the mean over the sample's target views; g_i = 1 where t_i >= perceptual_min_t, else 0. Everything is divided by
// the number of all samples later, not by that of the open ones: the loss stays a sum over samples, exact at any split
// of the batch, and the gate takes (1 - min_t) of the perceptual terms' weight under uniform times.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

class Lpips;
class VggPerceptual;

// The pretrained networks that terms need: on the device of the pictures, shared, constants.
struct LossNetworks {
  std::shared_ptr<Lpips const> lpips;
  std::shared_ptr<VggPerceptual const> vgg;
};

struct RenderLossOptions {
  double l2_weight = 1, lpips_weight = 0, perceptual_weight = 0;
  double l1_weight = 0, gradient_weight = 0;
  double perceptual_min_t = 0;       // the networks' terms count for samples with t of at least this
  std::int64_t perceptual_crop = 0;  // they see a random square of so many pixels a side of each picture; 0: all of it
  std::uint64_t seed = 0;            // of the crops' places
  LossNetworks networks{};
  std::int64_t view_chunk = 0;  // target views rendered and walked back at once (model/render_pass.h); 0: all

  // True when every weight is zero: the loss is then identically zero and there is no point in rendering.
  bool empty() const;
};

// What is known of the samples of a batch beside their pictures.
struct RenderSamples {
  at::Tensor t{};                          // [B]; undefined (no times: reconstruction): every sample is open
  std::vector<std::uint64_t> positions{};  // [B] in the run's order, where a crop lies depends on them; empty: 0, 1, ..
  std::int64_t first_view = 0;             // and on the view: of the first one given
};

class ImageTerm;

class RenderLoss {
 public:
  // std::invalid_argument for a negative or non-finite weight, one of a term whose network is not given, and a gate or
  // a crop that cannot be.
  explicit RenderLoss(RenderLossOptions const& options);

  bool empty() const { return terms_.empty(); }
  std::int64_t view_chunk() const { return options_.view_chunk; }

  struct Result {
    at::Tensor loss;                                        // [B] weighted sum
    std::vector<std::pair<std::string, at::Tensor>> terms;  // [B] each, unweighted, gated; those of non-zero weight
    at::Tensor term(std::string const& name) const;         // detached; undefined when it has no weight
  };
  // image, target [B,T,3,H,W] in [0,1]. std::invalid_argument naming both shapes where they differ (broadcasting would
  // hide it), and for pictures smaller than the crop.
  Result operator()(at::Tensor const& image_BT3HW, at::Tensor const& target_BT3HW,
                    RenderSamples const& samples = {}) const;

 private:
  struct Weighted {
    std::string name;
    double weight;
    std::shared_ptr<ImageTerm const> term;
  };
  RenderLossOptions options_;
  std::vector<Weighted> terms_;
};

}  // namespace duoflow::model
