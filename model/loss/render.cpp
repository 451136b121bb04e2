#include "model/loss/render.h"

#include <array>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace duoflow::model {

namespace {

class MeanSquareError : public ImageTerm {
 public:
  at::Tensor per_sample(at::Tensor const& image, at::Tensor const& target) const override {
    return (image - target).square().flatten(1).mean(1);
  }
};

struct TableRow {
  char const* name;
  std::unique_ptr<ImageTerm> (*make)();
};
constexpr std::array kImageTerms{
    TableRow{"mse", []() -> std::unique_ptr<ImageTerm> { return std::make_unique<MeanSquareError>(); }},
};

}  // namespace

std::unique_ptr<ImageTerm> make_image_term(std::string const& name) {
  std::vector<std::string> names;
  for (TableRow const& row : kImageTerms) {
    if (name == row.name) return row.make();
    names.emplace_back(row.name);
  }
  throw std::invalid_argument(fmt::format("there is no image loss term '{}', use one of: {}; or give it weight 0", name,
                                          fmt::join(names, ", ")));
}

RenderLoss::RenderLoss(RenderLossOptions const& options) {
  std::array<std::pair<char const*, double>, 3> const weighted{
      {{"mse", options.l2_weight}, {"lpips", options.lpips_weight}, {"perceptual", options.perceptual_weight}}};
  for (auto const& [name, weight] : weighted) {
    if (!std::isfinite(weight) || weight < 0) {
      throw std::invalid_argument(
          fmt::format("the weight of image loss term '{}' is {}, use a number >= 0", name, weight));
    }
    if (weight == 0) continue;
    terms_.emplace_back(weight, make_image_term(name));
    names_.emplace_back(name);
  }
}

RenderLoss::Result RenderLoss::operator()(at::Tensor const& image, at::Tensor const& target) const {
  if (image.sizes() != target.sizes()) {
    throw std::invalid_argument(fmt::format("rendered images are [{}] but their targets [{}], give both the same shape",
                                            fmt::join(image.sizes(), ","), fmt::join(target.sizes(), ",")));
  }
  Result result{at::zeros({image.size(0)}, image.options().dtype(at::kFloat)), {}};
  for (std::size_t i = 0; i < terms_.size(); ++i) {
    at::Tensor const value = terms_[i].second->per_sample(image, target);
    result.loss = result.loss + terms_[i].first * value;
    result.terms.emplace_back(names_[i], value);
  }
  return result;
}

}  // namespace duoflow::model
