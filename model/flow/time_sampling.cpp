#include "model/flow/time_sampling.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "model/flow/random.h"

namespace duoflow::model {
namespace {

using std::numbers::pi;

struct Draw {
  std::uint64_t seed, position;
  double uniform(std::uint64_t counter = 0) const { return uniform01(seed, position, Stream::time, counter); }
  double normal() const { return standard_normal(seed, position, Stream::time, 0); }
};

double early(Draw const& draw) {
  double const u = draw.uniform();
  return u * u;
}

double late(Draw const& draw) {
  double const rest = 1 - draw.uniform();
  return 1 - rest * rest;
}

double mode(TimeSampling const& sampling, Draw const& draw) {
  double const u = draw.uniform(), cosine = std::cos(pi * u / 2);
  return 1 - u - sampling.mode_scale * (cosine * cosine - 1 + u);
}

std::size_t one_of(std::size_t count, double u) {
  return std::min(count - 1, static_cast<std::size_t>(u * static_cast<double>(count)));
}

struct Kind {
  char const* name;
  double (*draw)(TimeSampling const& sampling, Draw const& draw);
};
constexpr Kind kKinds[] = {
    {"uniform", [](TimeSampling const&, Draw const& draw) { return draw.uniform(); }},
    {"early_bias", [](TimeSampling const&, Draw const& draw) { return early(draw); }},
    {"late_bias", [](TimeSampling const&, Draw const& draw) { return late(draw); }},
    {"mixed",
     [](TimeSampling const&, Draw const& draw) { return draw.uniform(1) < 0.5 ? draw.uniform() : early(draw); }},
    {"logit_normal", [](TimeSampling const& s,
                        Draw const& draw) { return 1 / (1 + std::exp(-(s.mean + s.deviation * draw.normal()))); }},
    {"mode", [](TimeSampling const& s, Draw const& draw) { return mode(s, draw); }},
    {"cosmap", [](TimeSampling const&, Draw const& draw) { return 1 - 1 / (std::tan(pi * draw.uniform() / 2) + 1); }},
    {"discrete",
     [](TimeSampling const& s, Draw const& draw) { return s.times[one_of(s.times.size(), draw.uniform())]; }},
};

Kind const* find_kind(std::string const& name) {
  auto const* const found =
      std::find_if(std::begin(kKinds), std::end(kKinds), [&](Kind const& k) { return name == k.name; });
  return found == std::end(kKinds) ? nullptr : found;
}

}  // namespace

std::vector<std::string> const& time_sampling_names() {
  static std::vector<std::string> const names = [] {
    std::vector<std::string> all;
    for (Kind const& kind : kKinds) all.emplace_back(kind.name);
    return all;
  }();
  return names;
}

void check_time_sampling(TimeSampling const& s) {
  if (find_kind(s.name) == nullptr)
    throw std::invalid_argument(
        fmt::format("unknown time sampling '{}', use one of: {}", s.name, fmt::join(time_sampling_names(), ", ")));
  if (!(std::isfinite(s.shift) && s.shift > 0))
    throw std::invalid_argument(fmt::format("the shift of time is {}, it must be positive", s.shift));
  if (s.name == "logit_normal" && !(std::isfinite(s.mean) && std::isfinite(s.deviation) && s.deviation > 0))
    throw std::invalid_argument(
        fmt::format("logit_normal with mean {} and deviation {}, the mean must be finite and the "
                    "deviation positive",
                    s.mean, s.deviation));
  double const largest = 2 / (pi - 2);
  if (s.name == "mode" && !(s.mode_scale >= -1 && s.mode_scale <= largest))
    throw std::invalid_argument(fmt::format(
        "mode with scale {}, it must lie in [-1, {:.4f}] (elsewhere t is not monotone in u)", s.mode_scale, largest));
  if (s.name == "discrete" &&
      (s.times.empty() || !std::all_of(s.times.begin(), s.times.end(), [](double t) { return t >= 0 && t <= 1; })))
    throw std::invalid_argument(
        fmt::format("discrete times [{}], give at least one, each in [0, 1]", fmt::join(s.times, ", ")));
}

double sample_time(TimeSampling const& sampling, std::uint64_t seed, std::uint64_t position) {
  Kind const* const kind = find_kind(sampling.name);
  if (kind == nullptr) check_time_sampling(sampling);  // throws
  double const t = kind->draw(sampling, {seed, position});
  return sampling.shift * t / (1 + (sampling.shift - 1) * t);
}

}  // namespace duoflow::model
