#include "launch/batches.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "model/flow/random.h"
#include "model/rays.h"

namespace duoflow::launch {
namespace {

at::ScalarType scalar_type(data::DType dtype) {
  switch (dtype) {
    case data::DType::u8:
      return at::kByte;
    case data::DType::i64:
      return at::kLong;
    case data::DType::f16:
      return at::kHalf;
    case data::DType::bf16:
      return at::kBFloat16;
    case data::DType::f32:
      return at::kFloat;
    case data::DType::name:
      break;
  }
  throw std::logic_error("a string field has no tensor");
}

// A float copy on the device that no longer refers to the batch's memory (once the stream has passed on CUDA).
at::Tensor own_float(at::Tensor const& view, at::Device device) {
  return view.to(device, /*non_blocking=*/true)
      .to(at::kFloat, /*non_blocking=*/true, /*copy=*/view.scalar_type() == at::kFloat);
}

// [samples] fp32 on the device, one number a sample.
at::Tensor per_sample(std::vector<std::uint64_t> const& positions, at::Device device,
                      std::function<float(std::uint64_t)> const& number_of) {
  auto numbers =
      at::empty({std::ssize(positions)},
                at::TensorOptions(at::kFloat).pinned_memory(device.is_cuda()));  // else the copy waits for the device
  auto* values = numbers.mutable_data_ptr<float>();
  std::transform(positions.begin(), positions.end(), values, number_of);
  return numbers.to(device, /*non_blocking=*/true);
}

at::Tensor times(std::vector<std::uint64_t> const& positions, Config const& config, at::Device device) {
  return per_sample(positions, device,
                    [sampling = time_sampling(config.flow), seed = config.training.seed](std::uint64_t position) {
                      return static_cast<float>(model::sample_time(sampling, seed, position));
                    });
}

at::Tensor noise_of(std::vector<std::uint64_t> const& positions, model::ModelOptions const& options, std::uint64_t seed,
                    at::Device device) {
  std::vector<at::Tensor> noise;
  for (auto const position : positions) noise.push_back(starting_noise(options, seed, position));
  auto const stacked = at::stack(noise);  // from pageable memory the copy would wait for the device
  return (device.is_cuda() ? stacked.pin_memory() : stacked).to(device, /*non_blocking=*/true);
}

}  // namespace

bool needs_noise(Config const& config) {
  return config.model.editor == model::EditorKind::noise_to_relit ||
         (config.flow.path != "linear" && config.flow.path_sigma != 0);
}

at::Tensor starting_noise(model::ModelOptions const& options, std::uint64_t seed, std::uint64_t position) {
  return model::normal_tensor({options.n_latent_vectors, options.d}, seed, position, model::Stream::noise);
}

at::Tensor field_tensor(data::Batch const& batch, data::Field const& field) {
  std::vector<std::int64_t> shape{batch.samples};
  shape.insert(shape.end(), field.sample_shape.begin(), field.sample_shape.end());
  return at::from_blob(batch.fields.at(field.name), shape, at::TensorOptions().dtype(scalar_type(field.dtype)));
}

at::Tensor field_tensor(data::Batch const& batch, data::BatchSource const& source, std::string const& name) {
  for (auto const& field : source.fields())
    if (field.name == name) return field_tensor(batch, field);
  throw std::logic_error(fmt::format("batch has no field {}", name));
}

at::Tensor image_tensor(at::Tensor const& pixels_u8, at::Device device) {
  auto const on_device = pixels_u8.to(device, /*non_blocking=*/true);
  return on_device.movedim(-1, -3).to(at::kFloat).contiguous().div_(255);
}

at::Tensor light_tensor(at::Tensor const& env, at::Tensor const& world_to_norm, std::int64_t env_height,
                        model::LightEncoding encoding, at::Device device) {
  auto linear = own_float(env, device);
  if (linear.size(1) != env_height || linear.size(2) != 2 * env_height)
    linear = at::upsample_bilinear2d(linear.movedim(-1, 1), {env_height, 2 * env_height}, /*align_corners=*/false)
                 .movedim(1, -1)
                 .contiguous();
  return model::encode_light(linear, own_float(world_to_norm, device), encoding);
}

namespace {

// Rays of the cameras that the pictures were taken with; prefix: input or target.
at::Tensor rays_of(data::Batch const& batch, data::BatchSource const& source, std::string const& prefix,
                   at::Tensor const& image) {
  auto const device = image.device();
  return model::pluecker_rays(own_float(field_tensor(batch, source, prefix + "_c2w"), device),
                              own_float(field_tensor(batch, source, prefix + "_fxfycxcy"), device), image.size(-2),
                              image.size(-1));
}

}  // namespace

InputPictures input_pictures(data::Batch const& batch, data::BatchSource const& source, at::Device device) {
  auto field = [&](char const* name) { return field_tensor(batch, source, name); };
  InputPictures result;
  result.image = image_tensor(field("input_images"), device);
  if (batch.fields.contains("relit_images")) result.relit = image_tensor(field("relit_images"), device);
  result.rays = rays_of(batch, source, "input", result.image);
  return result;
}

std::vector<std::uint64_t> positions_of(data::Batch const& batch) {
  std::vector<std::uint64_t> positions(static_cast<std::size_t>(batch.samples));
  std::memcpy(positions.data(), batch.fields.at("position"), positions.size() * sizeof(positions[0]));
  return positions;
}

at::Tensor kept_lights(std::vector<std::uint64_t> const& positions, double dropout, std::uint64_t seed,
                       at::Device device) {
  if (dropout == 0) return {};
  return per_sample(positions, device, [&](std::uint64_t position) {
    return model::uniform01(seed, position, model::Stream::light, 0) < dropout ? 0.0F : 1.0F;
  });
}

model::JointBatch joint_batch(data::Batch const& batch, data::BatchSource const& source, Config const& config,
                              model::LightEncoding encoding, at::Device device) {
  auto const& options = config.model;
  auto field = [&](char const* name) { return field_tensor(batch, source, name); };
  model::JointBatch result;
  if (batch.fields.contains("x0")) {
    result.x0 = own_float(field("x0"), device);
    result.x1 = own_float(field("x1"), device);
  } else {
    auto const pictures = input_pictures(batch, source, device);
    result.input_image = pictures.image;
    result.relit_image = pictures.relit;
    result.input_rays = pictures.rays;
  }
  result.positions = positions_of(batch);
  result.t = model::knows_time(options.editor)
                 ? times(result.positions, config, device)
                 : at::zeros({batch.samples}, at::TensorOptions(at::kFloat).device(device));
  if (needs_noise(config)) result.noise = noise_of(result.positions, options, config.training.seed, device);
  result.env = light_tensor(field("env"), field("world_to_norm"), options.env_height, encoding, device);
  result.light_kept = kept_lights(result.positions, config.training.light_dropout, config.training.seed, device);
  result.target_image = image_tensor(field("target_images"), device);
  result.target_rays = rays_of(batch, source, "target", result.target_image);
  return result;
}

model::ReconstructionBatch reconstruction_batch(data::Batch const& batch, data::BatchSource const& source,
                                                at::Device device) {
  auto const inputs = input_pictures(batch, source, device);
  auto const target = image_tensor(field_tensor(batch, source, "target_images"), device);
  return {inputs.image, inputs.rays, rays_of(batch, source, "target", target), target, positions_of(batch)};
}

std::vector<at::Tensor*> tensors_of(model::JointBatch& b) {
  return {&b.x0, &b.x1, &b.t, &b.env, &b.target_rays, &b.target_image, &b.input_image, &b.relit_image, &b.input_rays, &b.noise,
          &b.light_kept};
}

std::vector<at::Tensor*> tensors_of(model::ReconstructionBatch& b) {
  return {&b.input_image, &b.input_rays, &b.target_rays, &b.target_image};
}

}  // namespace duoflow::launch
