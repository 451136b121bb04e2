// The image terms of the render loss: against the Python twin, against finite differences, and their options.

#include <functional>

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/loss/pixel_terms.h"
#include "tests/model/loss_networks.h"
#include "tests/model/small_model.h"

namespace duoflow::model {
namespace {

using Distance = std::function<at::Tensor(at::Tensor const& image, at::Tensor const& target)>;

constexpr std::int64_t kDivisor = 16;  // make_image_losses.py's

NamedTensors as(NamedTensors tensors, at::ScalarType type) {
  for (auto& [name, tensor] : tensors) tensor = tensor.to(type);
  return tensors;
}

Distance distance_of(std::string const& name, at::ScalarType type) {
  if (name == "l1") return mean_absolute_error;
  if (name == "gradient") return gradient_difference;
  if (name == "mse") return mean_square_error;
  auto const plan = narrowed(name == "lpips_vgg"    ? vgg16_plan()
                             : name == "lpips_alex" ? alexnet_plan()
                                                    : vgg19_plan(),
                             kDivisor);
  auto const weights = as(test::formula_weights(plan, name != "perceptual"), type);
  if (name == "perceptual")
    return [network = VggPerceptual(weights, plan)](auto const& x, auto const& y) { return network.distance(x, y); };
  return [network = Lpips(plan, weights)](auto const& x, auto const& y) { return network.distance(x, y); };
}

at::Tensor image_gradient(Distance const& distance, at::Tensor const& image, at::Tensor const& target) {
  at::Tensor const x = image.detach().requires_grad_(true);
  return torch::autograd::grad({distance(x, target).sum()}, {x})[0];
}

// The twin's LPIPS divides by length + 1e-10, this one by the root of length^2 + 1e-10 (lpips.h): what that makes was
// measured here, where a sixteenth of the channels leaves some features near zero: values 4.5e-6, gradients 4.2e-6.
TEST(ImageLossesTest, EveryTermHasTheTwinsValueAndGradient) {
  auto const golden = test::golden("image_losses", "");
  for (auto const type : {at::kDouble, at::kFloat}) {
    at::Tensor const image = test::formula_images({2, 3, 32, 37}, 0).to(type),
                     target = test::formula_images({2, 3, 32, 37}, 1).to(type);
    for (std::string const name : {"lpips_vgg", "lpips_alex", "perceptual", "l1", "gradient"}) {
      SCOPED_TRACE(name + (type == at::kDouble ? " in fp64" : " in fp32"));
      auto const distance = distance_of(name, type);
      bool const exact = type == at::kDouble && !name.starts_with("lpips");
      EXPECT_LT(test::relative_error(distance(image, target), golden.at(name)), exact ? 1e-10 : 1e-5);
      auto const gradient = golden.find(name + ".grad");
      if (gradient == golden.end()) continue;
      EXPECT_LT(test::relative_error(image_gradient(distance, image, target)[1], gradient->second),
                exact ? 1e-6 : 1e-4);  // stored in fp32; in fp32 a ReLU or a maximum near its kink
    }
  }
}

TEST(ImageLossesTest, MaskedLpipsIsTheMeanOfTheSpatialMapOverTheMask) {
  auto const golden = test::golden("image_losses", "");
  at::Tensor const image = test::formula_images({2, 3, 32, 37}, 0), target = test::formula_images({2, 3, 32, 37}, 1);
  auto const plan = narrowed(vgg16_plan(), kDivisor);
  Lpips const network(plan, as(test::formula_weights(plan, true), at::kDouble));
  auto const both = network.distances(image, target, target.select(1, 0) > 0.6);
  EXPECT_LT(test::relative_error(both.masked, golden.at("lpips_vgg.masked")), 1e-5);
  EXPECT_LT(test::relative_error(both.full, golden.at("lpips_vgg")), 1e-5);
  EXPECT_GT(test::relative_error(both.masked, both.full), 1e-2);
  EXPECT_FALSE(network.distances(image, target, {}).masked.defined());
}

// Central differences along random directions. The steps are small against the distance of most kinks.
TEST(ImageLossesTest, EveryGradientIsThatOfFiniteDifferences) {
  at::Tensor const image = test::formula_images({1, 3, 32, 33}, 0), target = test::formula_images({1, 3, 32, 33}, 1);
  for (std::string const name : {"mse", "l1", "gradient", "lpips_vgg", "lpips_alex", "perceptual"}) {
    SCOPED_TRACE(name);
    auto const distance = distance_of(name, at::kDouble);
    at::Tensor const gradient = image_gradient(distance, image, target);
    for (double const phase : {2.0, 3.0}) {
      at::Tensor const direction = test::formula_images(image.sizes().vec(), phase) - 0.5;
      double const h = 1e-7;
      double const slope =
          ((distance(image + h * direction, target) - distance(image - h * direction, target)) / (2 * h))
              .item<double>();
      double const expected = (gradient * direction).sum().item<double>();
      EXPECT_NEAR(slope, expected, 2e-5 * std::abs(expected) + 1e-8);
    }
  }
}

TEST(ImageLossesTest, AllZeroFeaturesHaveTheFiniteGradientOfFiniteDifferences) {
  at::Tensor const zero = at::zeros({1, 4, 2, 2}, at::kDouble), weight = test::formula_images({1, 4, 2, 2}, 0);
  auto const value = [&](at::Tensor const& x) { return (unit_features(x) * weight).sum(); };
  at::Tensor const x = zero.clone().requires_grad_(true);
  at::Tensor const gradient = torch::autograd::grad({value(x)}, {x})[0];
  EXPECT_LT(test::relative_error(gradient, weight / 1e-5), 1e-12);
  double const h = 1e-9;  // small against the root of 1e-10
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    at::Tensor const step = at::zeros_like(zero);
    step.view({-1})[i] = h;
    double const slope = (value(zero + step) - value(zero - step)).item<double>() / (2 * h);
    EXPECT_NEAR(slope, gradient.view({-1})[i].item<double>(), 1e-3);
  }
  // The whole distance, of a network whose features are all dead on both sides, or on one.
  for (auto const type : {at::kFloat, at::kDouble}) {
    auto weights = as(test::formula_weights(test::tiny_plan(), true), type);
    at::Tensor const image = test::formula_images({2, 3, 6, 6}, 0).to(type);
    for (auto& [name, tensor] : weights)
      if (name == "features.0.bias") tensor = tensor - 1e3;
    Lpips const dead(test::tiny_plan(), weights);
    auto const distance = [&](auto const& a, auto const& b) { return dead.distance(a, b); };
    for (at::Tensor const& target : {image, 1 - image}) {
      at::Tensor const found = image_gradient(distance, image, target);
      EXPECT_TRUE(at::isfinite(found).all().item<bool>());
      EXPECT_TRUE(at::isfinite(dead.distance(image, target)).all().item<bool>());
    }
  }
}

TEST(ImageLossesTest, EqualPicturesAreAtDistanceZeroWithAZeroGradient) {
  at::Tensor const image = test::formula_images({2, 3, 32, 33}, 0).to(at::kFloat);
  for (std::string const name : {"mse", "l1", "gradient", "lpips_vgg", "lpips_alex", "perceptual"}) {
    auto const distance = distance_of(name, at::kFloat);
    EXPECT_EQ(distance(image, image).abs().max().item<double>(), 0) << name;
    EXPECT_EQ(image_gradient(distance, image, image).abs().max().item<double>(), 0) << name;
  }
}

TEST(ImageLossesTest, TheNetworksRunInFp32UnderAutocastAndTakeBf16Pictures) {
  auto const networks = test::tiny_networks();
  at::Tensor const image = test::formula_images({2, 3, 8, 8}, 0).to(at::kFloat),
                   target = test::formula_images({2, 3, 8, 8}, 1).to(at::kFloat);
  for (auto const &distance : {Distance([&](auto const&x, auto const&y) { return networks.lpips->distance(x, y); }),
                               Distance([&](auto const&x, auto const&y) { return networks.vgg->distance(x, y); })}) {
    at::Tensor const plain = distance(image, target), plain_gradient = image_gradient(distance, image, target);
    at::autocast::set_autocast_enabled(at::kCPU, true);
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::Tensor const cast = distance(image, target), cast_gradient = image_gradient(distance, image, target);
    at::autocast::set_autocast_enabled(at::kCPU, false);
    at::autocast::clear_cache();
    EXPECT_TRUE(at::equal(cast, plain));
    EXPECT_TRUE(at::equal(cast_gradient, plain_gradient));
    EXPECT_EQ(distance(image.to(at::kBFloat16), target).scalar_type(), at::kFloat);
    EXPECT_EQ(image_gradient(distance, image.to(at::kBFloat16), target).scalar_type(), at::kBFloat16);
  }
}

TEST(ImageLossesTest, PoolingBySelectionIsMaxPool2dTiesIncluded) {
  at::Tensor const noisy = test::formula_images({2, 3, 9, 10}, 0);
  for (at::Tensor const& x : {noisy, (noisy * 4).floor(), at::ones_like(noisy)}) {  // the last two full of ties
    for (auto const& [kernel, stride] : {std::pair{2, 2}, std::pair{3, 2}}) {
      at::Tensor const a = x.detach().clone().requires_grad_(true), b = x.detach().clone().requires_grad_(true);
      at::Tensor const expected = at::max_pool2d(a, kernel, stride), found = max_pool_by_selection(b, kernel, stride);
      EXPECT_TRUE(at::equal(found, expected));
      at::Tensor const g = test::formula_images(expected.sizes().vec(), 1);
      EXPECT_TRUE(
          at::allclose(torch::autograd::grad({found}, {b}, {g})[0], torch::autograd::grad({expected}, {a}, {g})[0]));
    }
  }
}

// ---- options of the render loss

RenderLossOptions perceptual_options() {
  RenderLossOptions options;
  options.l2_weight = 2, options.lpips_weight = 0.5, options.perceptual_weight = 0.25, options.l1_weight = 0.75;
  options.gradient_weight = 1.5;
  options.networks = test::tiny_networks();
  return options;
}

at::Tensor pictures(double phase) { return test::formula_images({3, 2, 3, 12, 10}, phase).to(at::kFloat); }

TEST(RenderLossTermsTest, TheLossIsTheWeightedSumOfEachSamplesViews) {
  auto const options = perceptual_options();
  at::Tensor const image = pictures(0), target = pictures(1);
  auto const result = RenderLoss(options)(image, target);
  at::Tensor expected = at::zeros({3}, at::kDouble);
  for (std::int64_t i = 0; i < 3; ++i) {
    at::Tensor const x = image[i], y = target[i];
    expected[i] = 2 * mean_square_error(x, y).mean() + 0.75 * mean_absolute_error(x, y).mean() +
                  1.5 * gradient_difference(x, y).mean() + 0.5 * options.networks.lpips->distance(x, y).mean() +
                  0.25 * options.networks.vgg->distance(x, y).mean();
  }
  EXPECT_LT(test::relative_error(result.loss, expected), 1e-6);
  ASSERT_EQ(result.terms.size(), 5u);
  EXPECT_FALSE(result.term("lpips").requires_grad());
  EXPECT_FALSE(result.term("nothing").defined());
}

TEST(RenderLossTermsTest, TheGateClosesTheNetworksTermsForEarlyTimes) {
  auto options = perceptual_options();
  at::Tensor const image = pictures(0).requires_grad_(true), target = pictures(1);
  auto const open = RenderLoss(options)(image, target);
  options.perceptual_min_t = 0.5;
  RenderLoss const gated(options);
  RenderSamples const samples{at::tensor({0.25f, 0.5f, 0.75f})};
  auto const result = gated(image, target, samples);
  at::Tensor const mask = at::tensor({0.0f, 1.0f, 1.0f});
  for (auto const* name : {"lpips", "perceptual"}) EXPECT_TRUE(at::equal(result.term(name), open.term(name) * mask));
  for (auto const* name : {"mse", "l1", "gradient"}) EXPECT_TRUE(at::equal(result.term(name), open.term(name)));
  EXPECT_TRUE(at::equal(gated(image, target).loss, open.loss)) << "without times every sample is open";

  options.l2_weight = options.l1_weight = options.gradient_weight = 0;
  at::Tensor const gradient =
      torch::autograd::grad({RenderLoss(options)(image, target, samples).loss.sum()}, {image})[0];
  EXPECT_EQ(gradient[0].abs().max().item<double>(), 0);
  EXPECT_GT(gradient[1].abs().max().item<double>(), 0);
}

TEST(RenderLossTermsTest, ACropDependsOnSeedPositionAndViewAlone) {
  auto options = perceptual_options();
  options.perceptual_crop = 4, options.seed = 9;
  RenderLoss const loss(options);
  at::Tensor const image = pictures(0), target = pictures(1);
  std::vector<std::uint64_t> const positions{100, 101, 205};
  auto const whole = loss(image, target, {{}, positions});
  for (std::int64_t i = 0; i < 3; ++i) {
    auto const alone =
        loss(image.narrow(0, i, 1), target.narrow(0, i, 1), {{}, {positions[static_cast<std::size_t>(i)]}});
    EXPECT_LT(test::relative_error(alone.loss[0], whole.loss[i]), 1e-6);
  }
  auto const mse = RenderLoss(perceptual_options())(image, target).term("mse");
  EXPECT_TRUE(at::equal(whole.term("mse"), mse)) << "pixel terms see the whole picture";
  EXPECT_FALSE(at::equal(loss(image, target, {{}, {101, 102, 206}}).term("lpips"), whole.term("lpips")));
  options.seed = 10;
  EXPECT_FALSE(at::equal(RenderLoss(options)(image, target, {{}, positions}).term("lpips"), whole.term("lpips")));
}

// What the networks see of a picture whose pixels are numbered is a square of it; over many samples every place comes.
TEST(RenderLossTermsTest, CropsReachEveryPlaceAndNoFurther) {
  auto options = perceptual_options();
  options.l2_weight = options.l1_weight = options.gradient_weight = options.lpips_weight = 0;
  options.perceptual_crop = 4;
  RenderLoss const loss(options);
  at::Tensor const image = at::zeros({200, 1, 3, 6, 5}, at::kFloat).requires_grad_(true),
                   target = at::ones({200, 1, 3, 6, 5});
  at::Tensor const reached =
      torch::autograd::grad({loss(image, target, {}).loss.sum()}, {image})[0].select(1, 0).abs().sum(1) > 0;
  EXPECT_EQ(reached.flatten(1).sum(1).max().item<std::int64_t>(), 16);
  EXPECT_EQ(reached.flatten(1).sum(1).min().item<std::int64_t>(), 16);
  at::Tensor const top = reached.any(2).to(at::kInt).argmax(1), left = reached.any(1).to(at::kInt).argmax(1);
  at::Tensor const counts = at::bincount(top * 2 + left, {}, 6);
  EXPECT_EQ(counts.sum().item<std::int64_t>(), 200);
  EXPECT_GT(counts.min().item<std::int64_t>(), 200 / 6 / 2);
}

void expect_refused(RenderLossOptions const& options, std::string const& phrase) {
  try {
    RenderLoss const loss(options);
    loss(pictures(0), pictures(1));
    ADD_FAILURE() << "accepted: " << phrase;
  } catch (std::invalid_argument const& error) {
    EXPECT_NE(std::string(error.what()).find(phrase), std::string::npos) << error.what();
  }
}

TEST(RenderLossTermsTest, OptionsThatCannotBeAreErrors) {
  auto with = [](auto const& change) {
    auto options = perceptual_options();
    change(options);
    return options;
  };
  expect_refused(with([](auto& o) { o.l1_weight = -1; }), "'l1' is -1");
  expect_refused(with([](auto& o) { o.gradient_weight = std::nan(""); }), "'gradient'");
  expect_refused(with([](auto& o) { o.networks.lpips = nullptr; }), "'lpips' has a weight but no network");
  expect_refused(with([](auto& o) { o.networks.vgg = nullptr; }), "'perceptual' has a weight but no network");
  expect_refused(with([](auto& o) { o.perceptual_min_t = 1.5; }), "perceptual_min_t is 1.5");
  expect_refused(with([](auto& o) { o.perceptual_crop = -1; }), "perceptual_crop is -1");
  expect_refused(with([](auto& o) { o.perceptual_crop = 11; }), "does not fit into pictures of 12 x 10");
  EXPECT_THROW(gradient_difference(at::zeros({1, 3, 1, 4}), at::zeros({1, 3, 1, 4})), std::invalid_argument);
}

// ---- weights

void expect_weights_refused(NamedTensors const& weights, std::vector<std::string> const& phrases) {
  try {
    Lpips const lpips(test::tiny_plan(), weights);
    ADD_FAILURE() << "accepted: " << phrases.front();
  } catch (std::invalid_argument const& error) {
    for (auto const& phrase : phrases)
      EXPECT_NE(std::string(error.what()).find(phrase), std::string::npos) << error.what();
  }
}

TEST(LossWeightsTest, EachWrongTensorIsNamed) {
  auto const good = as(test::formula_weights(test::tiny_plan(), true), at::kFloat);
  auto const changed = [&](std::string const& name,
                           std::function<void(std::pair<std::string, at::Tensor>&)> const& change) {
    auto weights = good;
    for (auto& entry : weights)
      if (entry.first == name) change(entry);
    return weights;
  };
  EXPECT_NO_THROW(Lpips(test::tiny_plan(), good));
  expect_weights_refused({}, {"'features.0.weight'", "among the 0"});
  expect_weights_refused(changed("features.3.bias", [](auto& e) { e.first = "feature.3.bias"; }),
                         {"needs a tensor 'features.3.bias'", "nearest is 'feature.3.bias'"});
  auto extra = good;
  extra.emplace_back("lin2.weight", at::zeros({1, 6, 1, 1}));
  expect_weights_refused(extra, {"has no tensor 'lin2.weight'", "nearest is 'lin0.weight'"});
  expect_weights_refused(changed("features.0.weight",
                                 [](auto& e) {
                                   e.second = e.second.permute({2, 3, 1, 0});
                                 }),
                         {"'features.0.weight' has shape [3,3,3,4]", "needs [4,3,3,3]"});
  expect_weights_refused(
      changed("features.0.bias", [](auto& e) { e.second = e.second.clone(), e.second[1] = std::nan(""); }),
      {"'features.0.bias'", "not finite"});
  expect_weights_refused(changed("features.0.bias", [](auto& e) { e.second = e.second.to(at::kLong); }), {"integers"});
  expect_weights_refused(changed("lin1.weight", [](auto& e) { e.second = -e.second; }), {"'lin1.weight'", "negative"});
}

TEST(LossWeightsTest, TheRestOfAVgg19MayBeThere) {
  auto weights = test::formula_weights(test::tiny_plan(), false);
  weights.emplace_back("features.34.bias", at::zeros({2}));
  weights.emplace_back("classifier.6.weight", at::zeros({2, 2}));
  EXPECT_NO_THROW(VggPerceptual(weights, test::tiny_plan()));
  weights.emplace_back("features.36.bias", at::zeros({2}));
  EXPECT_THROW(VggPerceptual(weights, test::tiny_plan()), std::invalid_argument);
}

TEST(LossWeightsTest, TheFullPlansAreTheNetworksOfThePapers) {
  auto const numbers = [](TrunkPlan const& plan) {
    std::int64_t count = 0, inputs = 3;
    for (auto const& layer : plan.layers) {
      if (layer.kind != TrunkLayer::Kind::convolution) continue;
      count += layer.channels * (inputs * layer.kernel * layer.kernel + 1);
      inputs = layer.channels;
    }
    return count;
  };
  EXPECT_EQ(numbers(vgg16_plan()), 14714688);  // torchvision's features
  EXPECT_EQ(numbers(alexnet_plan()), 2469696);
  EXPECT_EQ(numbers(vgg19_plan()), 20024384 - 2 * 512 * (512 * 9 + 1));  // without the last two convolutions
}

TEST(LossWeightsTest, PicturesTooSmallForTheNetworkAreAnError) {
  for (auto const& [plan, side] : {std::pair(vgg16_plan(), 16), std::pair(alexnet_plan(), 31)}) {
    auto const narrow = narrowed(plan, 32);
    Lpips const lpips(narrow, test::formula_weights(narrow, true));
    EXPECT_EQ(lpips.smallest_side(), side);
    at::Tensor const fits = test::formula_images({1, 3, side, 40}, 0), small = fits.narrow(2, 0, side - 1);
    EXPECT_NO_THROW(lpips.distance(fits, fits));
    EXPECT_THROW(lpips.distance(small, small), std::invalid_argument);
  }
}

}  // namespace
}  // namespace duoflow::model
