// duoflow compare: two pictures, or the pictures of equal names in two folders, measured.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "data/images/image_io.h"
#include "launch/commands/commands.h"
#include "launch/config.h"
#include "launch/logging.h"
#include "launch/loss_weights.h"
#include "model/metrics.h"

namespace duoflow::launch {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// [1,3,H,W] in [0,1]; transparent pictures are put on white.
at::Tensor read_picture(fs::path const& path) {
  auto const image = data::over_white(data::read_image(path.string()));
  auto const bytes = at::tensor(at::ArrayRef<std::uint8_t>(image.pixels), at::kByte);
  return (bytes.view({1, image.height, image.width, 3}).permute({0, 3, 1, 2}).to(at::kFloat) / 255).contiguous();
}

// The names that both folders have to have.
std::vector<std::string> common_names(fs::path const& a, fs::path const& b) {
  auto const pictures = [](fs::path const& folder) {
    std::set<std::string> names;
    for (auto const& entry : fs::directory_iterator(folder)) {
      auto type = entry.path().extension().string();
      std::transform(type.begin(), type.end(), type.begin(), [](unsigned char c) { return std::tolower(c); });
      if (type == ".png" || type == ".jpg" || type == ".jpeg") names.insert(entry.path().filename().string());
    }
    return names;
  };
  auto const in_a = pictures(a), in_b = pictures(b);
  for (auto const& [here, there, names, others] : {std::tuple(&a, &b, &in_a, &in_b), std::tuple(&b, &a, &in_b, &in_a)})
    for (auto const& name : *names)
      if (!others->contains(name))
        throw data::DataError(
            fmt::format("{} has {} and {} has not (pictures are compared by name); give folders of "
                        "equal names",
                        here->string(), name, there->string()));
  if (in_a.empty())
    throw data::DataError(fmt::format("{} holds no PNG or JPEG picture; give two folders of them", a.string()));
  return {in_a.begin(), in_a.end()};
}

class Comparison {
 public:
  Comparison() {
    for (auto const network : {model::LpipsNetwork::vgg, model::LpipsNetwork::alex}) {
      std::string absent;
      lpips_.push_back(find_lpips(network, "", at::kCPU, &absent));
      if (!absent.empty())
        log_info(
            fmt::format("{} is null: {}", network == model::LpipsNetwork::vgg ? "lpips_vgg" : "lpips_alex", absent));
    }
  }

  Json measure(fs::path const& a, fs::path const& b) {
    at::NoGradGuard const no_graph;
    auto const x = read_picture(a), y = read_picture(b);
    if (x.sizes() != y.sizes())
      throw data::DataError(
          fmt::format("{} has {} x {} pixels and {} has {} x {} (height x width); give pictures of one "
                      "size",
                      a.string(), x.size(2), x.size(3), b.string(), y.size(2), y.size(3)));
    auto const side = std::min(x.size(2), x.size(3));
    Json json;
    json["psnr"] = model::psnr_per_image(x, y).item<double>();
    json["ssim"] = fits("ssim", side, model::kSsimWindow) ? Json(model::ssim_per_image(x, y).item<double>()) : Json();
    json["lpips_vgg"] = lpips("lpips_vgg", lpips_[0].get(), x, y);
    json["lpips_alex"] = lpips("lpips_alex", lpips_[1].get(), x, y);
    return json;
  }

 private:
  Json lpips(char const* name, model::Lpips const* network, at::Tensor const& x, at::Tensor const& y) {
    if (!network || !fits(name, std::min(x.size(2), x.size(3)), network->smallest_side())) return {};
    return network->distance(x, y).item<double>();
  }

  // Says once for each metric why it is null.
  bool fits(std::string const& name, std::int64_t side, std::int64_t smallest) {
    if (side < smallest && said_.insert(name).second)
      log_info(fmt::format("{} is null for pictures with a side below {} pixels", name, smallest));
    return side >= smallest;
  }

  std::vector<std::shared_ptr<model::Lpips const>> lpips_;
  std::set<std::string> said_;
};

// Means over the pictures (of those that have the number), then every picture.
Json compare_folders(fs::path const& a, fs::path const& b) {
  auto const names = common_names(a, b);
  Comparison comparison;
  Json images = Json::object(), json;
  for (auto const& name : names) images[name] = comparison.measure(a / name, b / name);
  for (auto const* metric : {"psnr", "ssim", "lpips_vgg", "lpips_alex"}) {
    double sum = 0, count = 0;
    for (auto const& image : images)
      if (!image.at(metric).is_null()) sum += image.at(metric).get<double>(), ++count;
    json[metric] = count > 0 ? Json(sum / count) : Json();
  }
  json["pictures"] = names.size();
  json["images"] = images;
  return json;
}

Json compare(fs::path const& a, fs::path const& b) {
  for (auto const& path : {a, b})
    if (!fs::exists(path))
      throw data::DataError(fmt::format("{} is not there; give two pictures or two folders", path.string()));
  if (fs::is_directory(a) != fs::is_directory(b))
    throw ConfigError(fmt::format("of {} and {} one is a folder and one is not; give two pictures or two folders",
                                  a.string(), b.string()));
  return fs::is_directory(a) ? compare_folders(a, b) : Comparison().measure(a, b);
}

}  // namespace

Command add_compare(CLI::App& root) {
  struct Arguments {
    std::string a, b;
  };
  auto arguments = std::make_shared<Arguments>();
  auto* app = root.add_subcommand(
      "compare", "measure two pictures, or two folders of pictures with equal names: psnr, ssim, lpips as JSON");
  app->add_option("a", arguments->a, "PNG or JPEG picture, or folder of them")->required();
  app->add_option("b", arguments->b, "likewise: what A should look like")->required();
  return {app, [arguments](dist::Runtime& runtime) {
            if (runtime.size() > 1) throw ConfigError("compare runs as one process; start it without mpirun");
            fmt::print("{}\n", compare(arguments->a, arguments->b).dump(2));
            return 0;
          }};
}

}  // namespace duoflow::launch
