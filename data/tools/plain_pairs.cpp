#include "data/tools/plain_pairs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "data/cameras.h"
#include "data/images/environment_map.h"
#include "data/error.h"
#include "data/tools/float_rows.h"

namespace duoflow::data {
namespace {

constexpr std::int64_t kAnySize = -1;
std::vector<PlainType> const kFloats = {PlainType::f32, PlainType::f64};
std::vector<PlainType> const kLatents = {PlainType::f32, PlainType::f16, PlainType::bf16, PlainType::f64};
constexpr std::array<std::string_view, 9> kTaken = {
    "x0", "x1", "target_images", "target_alpha", "target_c2w", "target_fxfycxcy", "env", "env_row", "world_to_norm"};
constexpr std::int64_t kBlackMapHeight = 16;

std::string why_needed(std::string_view name) {
  if (name == "x0" || name == "x1") return "a pair is x0 and x1";
  if (name == "env") return "the editor is shown the light of x1; --latents-only makes it black";
  return "the rendering loss compares with pictures under the light of x1; --latents-only PX does without";
}

DType latent_type(PlainType type) {
  return type == PlainType::f16 ? DType::f16 : type == PlainType::bf16 ? DType::bf16 : DType::f32;
}

}  // namespace

PlainPairs::PlainPairs(PlainSource const& source, std::int64_t latents_only)
    : path_(source.path), latents_only_(latents_only), arrays_(source.open()) {
  if (at("x0").shape.size() == 2)  // one pair without the first axis
    for (auto& [name, array] : arrays_) {
      array.shape.insert(array.shape.begin(), 1);
      array.read = [whole = array.read, rows = array.shape.size() > 1 ? array.shape[1] : 1](
                       std::int64_t, std::int64_t, void* out) { whole(0, rows, out); };
    }
  pairs_ = at("x0").rows();
  check_shapes();
}

PlainArray const& PlainPairs::at(char const* name) const {
  auto const found = arrays_.find(name);
  if (found == arrays_.end())
    throw DataError(fmt::format("{} has no {} ({}), add it (duoflow import --help lists what is needed)", path_, name,
                                why_needed(name)));
  return found->second;
}

void PlainPairs::require(char const* name, std::vector<PlainType> const& types,
                         std::vector<std::int64_t> const& shape) const {
  auto const& array = at(name);
  bool const fits =
      std::equal(shape.begin(), shape.end(), array.shape.begin(), array.shape.end(),
                 [](std::int64_t want, std::int64_t size) { return want == size || (want == kAnySize && size > 0); });
  if (fits && std::find(types.begin(), types.end(), array.type) != types.end()) return;
  std::vector<std::string> names;
  for (auto const type : types) names.push_back(to_string(type));
  throw DataError(fmt::format("{} is {} [{}] ({} [{}] needed, -1 standing for any size), convert it", array.where,
                              to_string(array.type), fmt::join(array.shape, ","), fmt::join(names, " or "),
                              fmt::join(shape, ",")));
}

void PlainPairs::check_shapes() const {
  require("x0", kLatents, {pairs_, kAnySize, kAnySize});
  auto const& x0 = at("x0");
  require("x1", {x0.type}, x0.shape);
  bool const maps = has("env_row");
  if (maps) require("env_row", {PlainType::i64}, {pairs_});
  if (has("env") || latents_only_ == 0)
    require("env", {PlainType::f16, PlainType::f32, PlainType::f64}, {maps ? kAnySize : pairs_, kAnySize, kAnySize, 3});
  if (has("world_to_norm")) require("world_to_norm", kFloats, {pairs_, 4, 4});
  if (latents_only_ > 0) {
    for (auto const* name : {"target_images", "target_alpha", "target_c2w", "target_fxfycxcy"})
      if (has(name))
        throw DataError(
            fmt::format("{} is there (--latents-only would put black pictures in its place), leave that option out",
                        at(name).where));
    return;
  }
  require("target_images", {PlainType::u8}, {pairs_, kAnySize, kAnySize, kAnySize, 3});
  auto const& images = at("target_images").shape;
  require("target_c2w", kFloats, {pairs_, images[1], 4, 4});
  require("target_fxfycxcy", kFloats, {pairs_, images[1], 4});
  if (has("target_alpha")) require("target_alpha", {PlainType::u8}, {pairs_, images[1], images[2], images[3]});
}

PlainForm PlainPairs::form() const {
  PlainForm form;
  auto& sizes = form.sizes;
  sizes.tokens = at("x0").shape[1];
  sizes.dim = at("x0").shape[2];
  sizes.latent_dtype = latent_type(at("x0").type);
  form.has_env = has("env");
  sizes.env_height = form.has_env ? at("env").shape[1] : kBlackMapHeight;
  sizes.env_width = form.has_env ? at("env").shape[2] : 2 * kBlackMapHeight;
  sizes.targets = 1;
  sizes.height = sizes.width = latents_only_;
  if (latents_only_ > 0) return form;
  auto const& images = at("target_images").shape;
  sizes.targets = images[1];
  sizes.height = images[2];
  sizes.width = images[3];
  sizes.has_alpha = has("target_alpha");
  return form;
}

std::vector<std::string> PlainPairs::left_behind() const {
  std::vector<std::string> names;
  for (auto const& [name, array] : arrays_)
    if (std::find(kTaken.begin(), kTaken.end(), name) == kTaken.end()) names.push_back(name);
  return names;
}

std::vector<std::byte> PlainPairs::latents(char const* name, std::int64_t row, DType dtype) const {
  auto const& array = at(name);
  return narrow(dtype, array.floats(row), fmt::format("{} row {}", array.where, row));
}

std::vector<std::uint8_t> PlainPairs::bytes(char const* name, std::int64_t row) const {
  auto const& array = at(name);
  std::vector<std::uint8_t> result(array.row_bytes());
  array.read(row, 1, result.data());
  return result;
}

std::vector<float> PlainPairs::finite(char const* name, std::int64_t row) const {
  auto numbers = at(name).floats(row);
  auto const bad = std::find_if_not(numbers.begin(), numbers.end(), [](float x) { return std::isfinite(x); });
  if (bad != numbers.end())
    throw DataError(
        fmt::format("{} row {} number {} is {} (finite numbers are needed), make that row again or leave the pair out",
                    at(name).where, row, bad - numbers.begin(), *bad));
  return numbers;
}

void PlainPairs::check_cameras(std::vector<float> const& c2w, std::vector<float> const& fxfycxcy,
                               std::int64_t row) const {
  auto const& images = at("target_images").shape;
  for (std::int64_t view = 0; view < images[1]; ++view) {
    auto const problem = camera_problem(&c2w[static_cast<std::size_t>(16 * view)],
                                        &fxfycxcy[static_cast<std::size_t>(4 * view)], images[2], images[3]);
    if (!problem.empty())
      throw DataError(
          fmt::format("{} row {} view {}: {}; give OpenCV c2w in the latents' frame and intrinsics in pixels",
                      at("target_c2w").where, row, view, problem));
  }
}

std::vector<float> PlainPairs::cameras(std::int64_t row) const {
  if (latents_only_ > 0) return {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  auto c2w = finite("target_c2w", row);
  check_cameras(c2w, finite("target_fxfycxcy", row), row);
  return c2w;
}

std::vector<float> PlainPairs::intrinsics(std::int64_t row) const {
  auto const size = static_cast<float>(latents_only_);
  if (latents_only_ > 0) return {size, size, size / 2, size / 2};
  return finite("target_fxfycxcy", row);
}

std::vector<float> PlainPairs::world_to_norm(std::int64_t row) const {
  if (!has("world_to_norm")) return {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  auto matrix = finite("world_to_norm", row);
  if (auto const problem = world_to_norm_problem(matrix.data()); !problem.empty())
    throw DataError(fmt::format("{} row {}: {}, correct it", at("world_to_norm").where, row, problem));
  return matrix;
}

std::vector<std::uint16_t> PlainPairs::env(std::int64_t row) const {
  auto const sizes = form().sizes;
  if (!has("env"))
    return std::vector<std::uint16_t>(static_cast<std::size_t>(sizes.env_height * sizes.env_width * 3), 0);
  std::int64_t map = row;
  if (has("env_row")) {
    auto const& rows = at("env_row");
    rows.read(row, 1, &map);
    if (map < 0 || map >= at("env").rows())
      throw DataError(fmt::format("{} row {} is {} ({} has {} maps), correct it", rows.where, row, map, at("env").where,
                                  at("env").rows()));
  }
  auto const radiance = finite("env", map);
  std::vector<std::uint16_t> half(radiance.size());
  std::transform(radiance.begin(), radiance.end(), half.begin(), [](float x) { return to_half(std::max(x, 0.0F)); });
  return half;
}

}  // namespace duoflow::data
