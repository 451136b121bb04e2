#include "launch/validation.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "data/error.h"
#include "launch/batches.h"
#include "launch/model_setup.h"
#include "model/metrics.h"

namespace duoflow::launch {
namespace {

void check_held_out(std::string const& directory, data::PairSet const& set, Config const& config,
                    model::SceneModel const& model) {
  auto const& shape = config.model;
  if (set.tokens != shape.n_latent_vectors || set.dim != shape.d || set.height != shape.image_size || set.width != shape.image_size)
    throw data::DataError(
        fmt::format("training.eval_data {}: latents {} x {} and pictures {} x {}, the model's are {} x {} and {} x {}; encode with "
                    "this model",
                    directory, set.tokens, set.dim, set.height, set.width, shape.n_latent_vectors, shape.d, shape.image_size,
                    shape.image_size));
  auto const producer = producer_of(model);
  if (set.producer != producer && !config.data.allow_other_producer)
    throw data::DataError(
        fmt::format("training.eval_data {}: encoded by another reconstructor (producer {}, this run's is {}); encode it with this "
                    "run's, or data.allow_other_producer=true",
                    directory, set.producer, producer));
}

}  // namespace

Validation::Validation(Config const& config, model::SceneModel const& model, at::Device device)
    : model_(model),
      device_(device),
      reader_(config.training.eval_data, device),
      encoding_(model::light_encoding_from_string(config.data.light_encoding)),
      editing_(edit_options(config, {})),
      env_height_(config.env_image_size),
      wanted_(config.training.eval_pairs) {
  check_held_out(config.training.eval_data, reader_.set(), config, model);
}

std::pair<double, double> Validation::measure(std::int64_t number) const {
  auto const& pair = reader_.set().pairs[static_cast<std::size_t>(number)];
  auto const light = light_tensor(reader_.env(pair.x1).unsqueeze(0), reader_.world_to_norm(pair.x0).unsqueeze(0), env_height_,
                                  encoding_, device_);
  auto const moved = edit_latents(model_, reader_.latents(pair.x0).unsqueeze(0), light, {number}, editing_);
  auto const image = model_.render(moved, reader_.rays(pair.x1).unsqueeze(0))[0];
  auto const target = reader_.images(pair.x1), mask = reader_.mask(pair.x1);
  auto const views = mask.flatten(1).any(1);
  auto const full = model::psnr_per_image(image, target).mean().item<double>();
  auto const masked = views.any().item<bool>()
                          ? model::psnr_per_image_masked(image, target, mask).index({views}).mean().item<double>()
                          : std::nan("");
  return {full, masked};
}

Validation::Score Validation::run(dist::Communicator const& communicator) const {
  at::NoGradGuard const no_grad;
  auto const all = std::ssize(reader_.set().pairs), taken = std::min<std::int64_t>(wanted_, all);
  auto sums = at::zeros({3}, at::kDouble);  // psnr, masked psnr, pairs with a foreground
  auto* const values = sums.mutable_data_ptr<double>();
  for (std::int64_t i = communicator.rank(); i < taken; i += communicator.size()) {
    auto const [full, masked] = measure((2 * i + 1) * all / (2 * taken));
    values[0] += full;
    if (std::isfinite(masked)) values[1] += masked, values[2] += 1;
  }
  auto const device = communicator.transport() && !communicator.transport()->moves_host_memory() ? device_ : at::Device(at::kCPU);
  auto const reduced = sums.to(device);
  dist::all_reduce(communicator, reduced).wait();
  auto const total = reduced.cpu();
  auto const* numbers = total.const_data_ptr<double>();
  return {numbers[0] / static_cast<double>(taken), numbers[1] / numbers[2], taken};
}

}  // namespace duoflow::launch
