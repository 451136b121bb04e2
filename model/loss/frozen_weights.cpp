#include "model/loss/frozen_weights.h"

#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "model/edit_distance.h"

namespace duoflow::model {

namespace {

// ", the nearest is 'x'"; nothing to name: "".
template <class Names>
std::string nearest_of(std::string const& name, Names const& names) {
  std::string const* best = nullptr;
  for (std::string const& candidate : names)
    if (!best || edit_distance(name, candidate) < edit_distance(name, *best)) best = &candidate;
  return best ? fmt::format(", the nearest is '{}'", *best) : "";
}

}  // namespace

FrozenWeights::FrozenWeights(NamedTensors const& tensors, std::string what)
    : tensors_(tensors), what_(std::move(what)) {}

at::Tensor FrozenWeights::take(std::string const& name, at::IntArrayRef shape) {
  auto const found =
      std::find_if(tensors_.begin(), tensors_.end(), [&](auto const& entry) { return entry.first == name; });
  if (found == tensors_.end()) {
    std::vector<std::string> left;
    for (auto const& [other, tensor] : tensors_)
      if (!taken_.contains(other)) left.push_back(other);
    throw std::invalid_argument(
        fmt::format("{} needs a tensor '{}' that is not among the {} given{}; give this network's weights", what_, name,
                    tensors_.size(), nearest_of(name, left)));
  }
  at::Tensor const tensor = found->second.detach();
  if (tensor.sizes() != shape)
    throw std::invalid_argument(
        fmt::format("'{}' has shape [{}] but {} needs [{}] (the weights of another network?); "
                    "give this network's weights",
                    name, fmt::join(tensor.sizes(), ","), what_, fmt::join(shape, ",")));
  if (!at::isFloatingType(tensor.scalar_type()))
    throw std::invalid_argument(
        fmt::format("'{}' holds integers but {} computes with real numbers; convert it", name, what_));
  if (!at::isfinite(tensor).all().item<bool>())  // once, when the weights are loaded: the host may wait
    throw std::invalid_argument(fmt::format(
        "'{}' of {} holds numbers that are not finite (every loss would be none); get the weights again", name, what_));
  taken_.insert(name);
  return tensor;
}

void FrozenWeights::finish(std::vector<std::string> const& unused_prefixes) const {
  for (auto const& [name, tensor] : tensors_) {
    bool const unused = std::any_of(unused_prefixes.begin(), unused_prefixes.end(),
                                    [&, &key = name](std::string const& prefix) { return key.starts_with(prefix); });
    if (unused || taken_.contains(name)) continue;
    throw std::invalid_argument(
        fmt::format("{} has no tensor '{}'{} (the weights of another network?); give this network's weights", what_,
                    name, nearest_of(name, taken_)));
  }
}

}  // namespace duoflow::model
