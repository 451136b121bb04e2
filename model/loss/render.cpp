#include "model/loss/render.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "model/flow/random.h"
#include "model/loss/lpips.h"
#include "model/loss/pixel_terms.h"
#include "model/loss/vgg_perceptual.h"

namespace duoflow::model {

class ImageTerm {
 public:
  virtual ~ImageTerm() = default;
  virtual at::Tensor per_sample(at::Tensor const& image_BT3HW, at::Tensor const& target_BT3HW) const = 0;  // [B]
  virtual bool gated() const { return false; }  // a pretrained network's: acts on the gate in t and on the crop
};

namespace {

template <at::Tensor (*distance)(at::Tensor const&, at::Tensor const&)>
class PixelTerm : public ImageTerm {
 public:
  explicit PixelTerm(RenderLossOptions const&) {}
  at::Tensor per_sample(at::Tensor const& image, at::Tensor const& target) const override {
    return distance(image, target);
  }
};

template <class Network, std::shared_ptr<Network const> LossNetworks::*member>
class NetworkTerm : public ImageTerm {
 public:
  explicit NetworkTerm(RenderLossOptions const& options) : network_(options.networks.*member) {
    if (!network_) throw std::invalid_argument("has a weight but no network (its pretrained weights were not given)");
  }
  bool gated() const override { return true; }
  at::Tensor per_sample(at::Tensor const& image, at::Tensor const& target) const override {
    return network_->distance(image.flatten(0, 1), target.flatten(0, 1)).view({image.size(0), image.size(1)}).mean(1);
  }

 private:
  std::shared_ptr<Network const> network_;
};

struct TableRow {
  char const* name;
  double RenderLossOptions::*weight;
  std::shared_ptr<ImageTerm const> (*make)(RenderLossOptions const&);
};
template <class Term>
std::shared_ptr<ImageTerm const> make(RenderLossOptions const& options) {
  return std::make_shared<Term>(options);
}
constexpr std::array kImageTerms{
    TableRow{"mse", &RenderLossOptions::l2_weight, make<PixelTerm<mean_square_error>>},
    TableRow{"l1", &RenderLossOptions::l1_weight, make<PixelTerm<mean_absolute_error>>},
    TableRow{"gradient", &RenderLossOptions::gradient_weight, make<PixelTerm<gradient_difference>>},
    TableRow{"lpips", &RenderLossOptions::lpips_weight, make<NetworkTerm<Lpips, &LossNetworks::lpips>>},
    TableRow{"perceptual", &RenderLossOptions::perceptual_weight, make<NetworkTerm<VggPerceptual, &LossNetworks::vgg>>},
};

void check_shapes(at::Tensor const& image, at::Tensor const& target, std::int64_t crop) {
  if (image.sizes() != target.sizes())
    throw std::invalid_argument(fmt::format("rendered images are [{}] but their targets [{}], give both the same shape",
                                            fmt::join(image.sizes(), ","), fmt::join(target.sizes(), ",")));
  if (crop > std::min(image.size(-2), image.size(-1)))
    throw std::invalid_argument(
        fmt::format("perceptual_crop = {} does not fit into pictures of {} x {} pixels, use at "
                    "most the smaller side, or 0",
                    crop, image.size(-2), image.size(-1)));
}

// Where the crop of one view lies: [top, left], uniform over all places, drawn from the sample's position.
std::array<std::int64_t, 2> crop_place(RenderLossOptions const& options, std::uint64_t position, std::int64_t view,
                                       std::int64_t height, std::int64_t width) {
  auto const draw = [&](std::int64_t places, std::int64_t counter) {
    double const u = uniform01(options.seed, position, Stream::crop, static_cast<std::uint64_t>(counter));
    return std::min(static_cast<std::int64_t>(u * static_cast<double>(places)), places - 1);
  };
  return {draw(height - options.perceptual_crop + 1, 2 * view),
          draw(width - options.perceptual_crop + 1, 2 * view + 1)};
}

at::Tensor cropped(at::Tensor const& image_BT3HW, RenderLossOptions const& options, RenderSamples const& batch) {
  std::int64_t const samples = image_BT3HW.size(0), views = image_BT3HW.size(1), crop = options.perceptual_crop;
  if (crop == 0 || samples * views == 0) return image_BT3HW;
  std::vector<at::Tensor> parts;
  for (std::int64_t i = 0; i < samples; ++i) {
    auto const sample = static_cast<std::size_t>(i);
    auto const position = batch.positions.empty() ? sample : batch.positions.at(sample);
    for (std::int64_t view = 0; view < views; ++view) {
      auto const [top, left] =
          crop_place(options, position, batch.first_view + view, image_BT3HW.size(3), image_BT3HW.size(4));
      parts.push_back(image_BT3HW.select(0, i).select(0, view).narrow(1, top, crop).narrow(2, left, crop));
    }
  }
  return at::stack(parts).view({samples, views, 3, crop, crop});
}

}  // namespace

bool RenderLossOptions::empty() const {
  return std::all_of(kImageTerms.begin(), kImageTerms.end(), [&](auto const& row) { return this->*row.weight == 0; });
}

RenderLoss::RenderLoss(RenderLossOptions const& options) : options_(options) {
  if (!(options.perceptual_min_t >= 0 && options.perceptual_min_t <= 1))
    throw std::invalid_argument(
        fmt::format("perceptual_min_t is {}, times run from 0 to 1; use a number of them", options.perceptual_min_t));
  if (options.perceptual_crop < 0)
    throw std::invalid_argument(
        fmt::format("perceptual_crop is {}, use a side in pixels, or 0 for whole pictures", options.perceptual_crop));
  if (options.view_chunk < 0)
    throw std::invalid_argument(
        fmt::format("view_chunk is {}, use a number of target views, or 0 for all at once", options.view_chunk));
  for (auto const& row : kImageTerms) {
    double const weight = options.*row.weight;
    if (!std::isfinite(weight) || weight < 0)
      throw std::invalid_argument(
          fmt::format("the weight of image loss term '{}' is {}, use a number >= 0", row.name, weight));
    if (weight == 0) continue;
    try {
      terms_.push_back({row.name, weight, row.make(options)});
    } catch (std::invalid_argument const& error) {
      throw std::invalid_argument(
          fmt::format("image loss term '{}' {}, give them or weight 0", row.name, error.what()));
    }
  }
}

at::Tensor RenderLoss::Result::term(std::string const& name) const {
  for (auto const& [other, value] : terms)
    if (other == name) return value.detach();
  return {};
}

RenderLoss::Result RenderLoss::operator()(at::Tensor const& image, at::Tensor const& target,
                                          RenderSamples const& samples) const {
  check_shapes(image, target, options_.perceptual_crop);
  Result result{at::zeros({image.size(0)}, image.options().dtype(at::kFloat)), {}};
  at::Tensor seen, seen_target;  // what the networks see, cut out once for all of them
  for (auto const& [name, weight, term] : terms_) {
    at::Tensor value;
    if (term->gated()) {
      if (!seen.defined()) {
        seen = cropped(image, options_, samples);
        seen_target = cropped(target, options_, samples);
      }
      value = term->per_sample(seen, seen_target);
      if (options_.perceptual_min_t > 0 && samples.t.defined())
        value = at::where(samples.t >= options_.perceptual_min_t, value, at::zeros_like(value));
    } else {
      value = term->per_sample(image, target);
    }
    result.loss = result.loss + weight * value;
    result.terms.emplace_back(name, value);
  }
  return result;
}

}  // namespace duoflow::model
