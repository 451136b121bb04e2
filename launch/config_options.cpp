// Values of the configuration as the other folders take them: ranges, times, solvers, weightings.

#include "launch/config.h"

#include <charconv>
#include <tuple>

#include <fmt/format.h>

#include "launch/config_validation.h"

namespace duoflow::launch {
namespace {

// "8-11" -> {8, 11}, "4" -> {4, 4}. `what`: of a number; `example`: of the key's value.
std::pair<std::int64_t, std::int64_t> parse_range(std::string const& part, std::string const& key,
                                                  std::string const& text, char const* what, char const* example) {
  auto number = [&](std::string const& digits) {
    std::int64_t value = -1;
    auto const [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size() || value < 0)
      throw ConfigError(
          fmt::format("{} = {} (\"{}\" is not a {} number); write for example {}", key, text, digits, what, example));
    return value;
  };
  auto const dash = part.find('-');
  auto const first = number(part.substr(0, dash));
  auto const last = dash == std::string::npos ? first : number(part.substr(dash + 1));
  if (last < first) throw ConfigError(fmt::format("{} = {} (range {} runs backwards)", key, text, part));
  return {first, last};
}

constexpr std::int64_t kMostFrames = 1'000'000;  // of one range: a scene has a few hundred

}  // namespace

std::vector<std::int64_t> parse_frames(std::string const& text, std::string const& key) {
  std::vector<std::int64_t> frames;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) {
    auto const [first, last] = parse_range(part, key, text, "frame", "0,4,8-11");
    if (last - first >= kMostFrames)
      throw ConfigError(fmt::format("{} = {} (range {} has more than {} frames)", key, text, part, kMostFrames));
    for (auto frame = first; frame <= last; ++frame) frames.push_back(frame);
  }
  return frames;
}

data::SkippedPositions skipped_positions(Config const& config) {
  constexpr std::int64_t kMostPositions = std::int64_t{1} << 53;  // logs have them as doubles
  std::vector<data::PositionRange> ranges;
  auto const text = fmt::format("[{}]", fmt::join(config.data.skip, ", "));
  for (auto const& part : config.data.skip) {
    auto const [first, last] = parse_range(part, "data.skip", text, "sample", "[9600-9999, 12000-12399]");
    if (last >= kMostPositions)
      throw ConfigError(
          fmt::format("data.skip = {} ({} is beyond 2^53, up to which samples are counted); lower it", text, last));
    ranges.push_back({static_cast<std::uint64_t>(first), static_cast<std::uint64_t>(last)});
  }
  return data::SkippedPositions(std::move(ranges));
}

model::TimeSampling time_sampling(FlowMatchingConfig const& f) {
  return {f.time_sampling, f.time_mean, f.time_deviation, f.time_mode_scale, f.discrete_times, f.time_shift};
}

model::SolverOptions solver_options(FlowMatchingConfig const& f) {
  model::SolverOptions options;
  options.name = f.ode_solver;
  options.steps = static_cast<int>(f.num_ode_steps);
  options.rtol = f.ode_rtol;
  options.atol = f.ode_atol;
  return options;
}

model::WeightingOptions weighting_options(Config const& config) {
  auto const& f = config.flow;
  model::WeightingOptions options;
  options.name = f.weighting;
  std::tie(options.clamp_min, options.clamp_max) = clamp_of(f);
  options.ema = f.weight_ema;
  options.lagged = f.statistics == "lagged";
  options.exposed = f.statistics == "exposed";
  options.warmup_steps = f.warmup_steps;
  options.schedule_form = f.schedule_form;
  options.velocity_start = f.velocity_start;
  options.velocity_end = f.velocity_end;
  options.render_start = f.render_start;
  options.render_end = f.render_end;
  options.velocity_only_steps = f.velocity_only_steps;
  options.alternating_period = f.alternating_period;
  options.uncertainty_lr = f.uncertainty_lr;
  options.parameter_interval = f.gradient_space == "parameters" ? f.gradient_interval : 0;
  return options;
}

}  // namespace duoflow::launch
