#pragma once
// Pretrained networks of the losses and metrics, from safetensors files. launch/setup.sh --perceptual gets LPIPS's;
// VGG19's is the user's (launch/loss_weights.py vgg19 converts it).

#include <memory>
#include <string>

#include <c10/core/Device.h>

#include "launch/config.h"
#include "model/loss/lpips.h"
#include "model/loss/render.h"

namespace duoflow::launch {

// Where the set-up puts a network's file: lpips_vgg16.safetensors or lpips_alex.safetensors in $DUOFLOW_WEIGHTS, else
// in .cache/weights of the nearest folder above the program that has one, else of the working directory.
std::string standard_lpips_path(model::LpipsNetwork network);

// From `path`, or the standard place where it is empty. ConfigError naming the command that gets the file when it is
// not there; CheckpointError naming the file when it is damaged or holds another network.
std::shared_ptr<model::Lpips const> load_lpips(model::LpipsNetwork network, std::string const& path, at::Device device);
// The same for a metric: null, and why in *absent, when the file is not there. A damaged one is an error all the same.
std::shared_ptr<model::Lpips const> find_lpips(model::LpipsNetwork network, std::string const& path, at::Device device,
                                               std::string* absent);

struct LoadedNetworks {
  model::LossNetworks networks;
  std::string fingerprint;  // of the weights: "lpips 0123456789abcdef, vgg19 ..."; "" without any
};
// What the config's render loss needs: nothing for terms of weight 0. Errors as load_lpips.
LoadedNetworks load_networks(Config const& config, at::Device device);

}  // namespace duoflow::launch
