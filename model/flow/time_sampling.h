#pragma once
// TimeSampling: the distribution of t over training samples. t = 0 is the source, t = 1 the target; authors who count
// the other way (SD3: t = 1 is noise) have the logit-normal's mean with the other sign, mode and cosmap are the same.
//
//   uniform       t = u
//   early_bias    t = u^2                     mean 1/3, density 1/(2 sqrt t)
//   late_bias     t = 1 - (1-u)^2             mean 2/3
//   mixed         per sample one of uniform and early_bias, evenly; mean 5/12
//   logit_normal  t = sigmoid(mean + deviation n), n standard normal (SD3, Esser et al. 2403.03206)
//   mode          t = 1 - u - s (cos^2(pi u / 2) - 1 + u), monotone for -1 <= s <= 2/(pi-2) (SD3)
//   cosmap        t = 1 - 1/(tan(pi u / 2) + 1) (SD3)
//   discrete      one of `times`, evenly (RenderFlow 2601.06928 and LBM 2503.07535 train few t)
// Then t' = a t / (1 + (a-1) t) with a = shift (SD3's shift of time; 1: none).

#include <cstdint>
#include <string>
#include <vector>

namespace duoflow::model {

struct TimeSampling {
  std::string name = "uniform";
  double mean = 0, deviation = 1;  // logit_normal
  double mode_scale = 1.29;        // mode
  std::vector<double> times{};     // discrete, each in [0, 1]
  double shift = 1;
};

std::vector<std::string> const& time_sampling_names();

// std::invalid_argument: an unknown name (lists them) or a parameter out of its range (says which).
void check_time_sampling(TimeSampling const& sampling);

// A function of (seed, position) only. In [0, 1]; strictly inside but for `discrete`.
double sample_time(TimeSampling const& sampling, std::uint64_t seed, std::uint64_t position);

}  // namespace duoflow::model
