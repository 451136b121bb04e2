#include "launch/loss_weights.h"

#include <cstdlib>
#include <filesystem>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "dist/checkpoint/checkpoint.h"
#include "dist/checkpoint/safetensors.h"
#include "dist/error.h"
#include "model/loss/vgg_perceptual.h"

namespace duoflow::launch {
namespace {

namespace fs = std::filesystem;

constexpr char const* kFolder = ".cache/weights";
constexpr char const* kGetLpips = "launch/setup.sh --perceptual";
constexpr char const* kConvertVgg19 = "launch/loss_weights.py vgg19 FILE OUT.safetensors";

fs::path weights_folder() {
  if (char const* const folder = std::getenv("DUOFLOW_WEIGHTS"); folder != nullptr && *folder != '\0') return folder;
  std::error_code ignored;
  auto const program = fs::read_symlink("/proc/self/exe", ignored);
  for (auto folder = program.parent_path(); !folder.empty(); folder = folder.parent_path()) {
    if (fs::is_directory(folder / kFolder, ignored)) return folder / kFolder;
    if (folder == folder.root_path()) break;
  }
  return kFolder;
}

char const* name_of(model::LpipsNetwork network) {
  return network == model::LpipsNetwork::vgg ? "lpips_vgg16" : "lpips_alex";
}

std::vector<dist::NamedTensor> read_weights(std::string const& path) {
  auto const type = fs::path(path).extension();
  if (type == ".pt" || type == ".pth" || type == ".mat" || type == ".ckpt")
    throw ConfigError(fmt::format(
        "{}: not a safetensors file (loss networks are read from those alone); convert it: {}", path, kConvertVgg19));
  return dist::read_safetensors(path);
}

template <class Network, class Make>
std::shared_ptr<Network const> make(std::string const& path, std::vector<dist::NamedTensor> const& tensors,
                                    at::Device device, Make const& make_network) {
  model::NamedTensors named;
  for (auto const& [name, tensor] : tensors)
    named.emplace_back(name, tensor.is_floating_point() ? tensor.to(device, at::kFloat) : tensor);
  try {
    return std::make_shared<Network const>(make_network(named));
  } catch (std::invalid_argument const& error) {
    throw dist::CheckpointError(fmt::format("{}: {}", path, error.what()));
  }
}

std::shared_ptr<model::Lpips const> make_lpips(model::LpipsNetwork network, std::string const& path,
                                               std::vector<dist::NamedTensor> const& tensors, at::Device device) {
  return make<model::Lpips>(path, tensors, device,
                            [&](model::NamedTensors const& named) { return model::Lpips(network, named); });
}

std::string lpips_path(model::LpipsNetwork network, std::string const& path) {
  return path.empty() ? standard_lpips_path(network) : path;
}

// "" when the file is there.
std::string why_absent(model::LpipsNetwork network, std::string const& path) {
  auto const found = lpips_path(network, path);
  if (fs::is_regular_file(found)) return "";
  return path.empty()
             ? fmt::format("no weights of LPIPS with {} ({} is not there); get them: {}",
                           network == model::LpipsNetwork::vgg ? "VGG16" : "AlexNet", found, kGetLpips)
             : fmt::format("training.lpips_weights = {} is not a file; name one, or leave the key empty after {}", path,
                           kGetLpips);
}

}  // namespace

std::string standard_lpips_path(model::LpipsNetwork network) {
  return (weights_folder() / name_of(network)).string() + ".safetensors";
}

std::shared_ptr<model::Lpips const> find_lpips(model::LpipsNetwork network, std::string const& path, at::Device device,
                                               std::string* absent) {
  *absent = why_absent(network, path);
  if (!absent->empty()) return nullptr;
  auto const found = lpips_path(network, path);
  return make_lpips(network, found, read_weights(found), device);
}

std::shared_ptr<model::Lpips const> load_lpips(model::LpipsNetwork network, std::string const& path,
                                               at::Device device) {
  std::string absent;
  auto lpips = find_lpips(network, path, device, &absent);
  if (!lpips) throw ConfigError(absent);
  return lpips;
}

LoadedNetworks load_networks(Config const& config, at::Device device) {
  auto const& t = config.training;
  LoadedNetworks loaded;
  if (config.objective == "joint" && config.flow.render_loss_weight == 0) return loaded;  // L_r is never computed
  std::vector<std::string> fingerprints;
  if (t.lpips_loss_weight > 0) {
    auto const network = model::lpips_network_from_string(t.lpips_network);
    if (auto const absent = why_absent(network, t.lpips_weights); !absent.empty())
      throw ConfigError(
          fmt::format("training.lpips_loss_weight = {}: {}, or set the weight to 0", t.lpips_loss_weight, absent));
    auto const path = lpips_path(network, t.lpips_weights);
    auto const tensors = read_weights(path);
    loaded.networks.lpips = make_lpips(network, path, tensors, device);
    fingerprints.push_back("lpips " + dist::model_fingerprint(tensors));
  }
  if (t.perceptual_loss_weight > 0) {
    if (!fs::is_regular_file(t.perceptual_weights))
      throw ConfigError(fmt::format(
          "training.perceptual_loss_weight = {} but training.perceptual_weights = \"{}\" is not a file (no package "
          "registry has MatConvNet's VGG19: bring the .mat file, or a checkpoint of the reference that holds it, and "
          "convert it: {}); name the converted file, or set the weight to 0",
          t.perceptual_loss_weight, t.perceptual_weights, kConvertVgg19));
    auto const tensors = read_weights(t.perceptual_weights);
    loaded.networks.vgg =
        make<model::VggPerceptual>(t.perceptual_weights, tensors, device,
                                   [](model::NamedTensors const& named) { return model::VggPerceptual(named); });
    fingerprints.push_back("vgg19 " + dist::model_fingerprint(tensors));
  }
  loaded.fingerprint = fmt::format("{}", fmt::join(fingerprints, ", "));
  return loaded;
}

}  // namespace duoflow::launch
