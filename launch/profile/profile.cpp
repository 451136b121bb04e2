#include "launch/profile/profile.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "dist/checkpoint/file_io.h"
#include "launch/profile/operator_counts.h"
#include "launch/profile/stages.h"

namespace duoflow::launch {
namespace {

namespace tracing = torch::autograd::profiler;

constexpr std::int64_t kWarmUp = 3;

// Floating-point operations a second of one large product of square matrices.
double product_rate(c10::Device device, model::ComputeType compute) {
  at::NoGradGuard const no_graph;
  auto const type = compute == model::ComputeType::bf16 ? at::kBFloat16 : at::kFloat;
  std::int64_t const side = device.is_cpu() ? 2048 : 8192;
  auto const a = at::randn({side, side}, at::TensorOptions(at::kFloat).device(device)).to(type);
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    auto const begin = std::chrono::steady_clock::now();
    auto const c = at::mm(a, a);
    static_cast<void>(c.select(0, 0).select(0, 0).cpu());  // waits for a device
    std::chrono::duration<double> const took = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 2.0 * static_cast<double>(side * side) * static_cast<double>(side) / took.count());
  }
  return best;
}

std::set<torch::profiler::impl::ActivityType> activities(c10::Device device) {
  using torch::profiler::impl::ActivityType;
  if (device.is_cpu()) return {ActivityType::CPU};
  return {ActivityType::CPU, ActivityType::CUDA};
}

}  // namespace

struct StepProfile::State {
  std::string folder;
  std::int64_t timed, done = 0;
  c10::Device device;
  model::ComputeType compute;
  StageTimeline timeline, uncounted;  // uncounted: stages of the steps that are counted or traced
  std::optional<StageObserver> observer;
  std::unique_ptr<OperatorCounts> counts;

  bool is_timed() const { return done >= kWarmUp && done < kWarmUp + timed; }
  bool is_counted() const { return done == kWarmUp + timed; }
  bool is_traced() const { return done == kWarmUp + timed + 1; }
  std::string table() const;
  std::string operators() const;
};

StepProfile::StepProfile(std::string folder, std::int64_t steps, c10::Device device, model::ComputeType compute)
    : state_(new State{std::move(folder), steps, 0, device, compute, StageTimeline(device), StageTimeline(device), {}, {}}) {
  std::filesystem::create_directories(state_->folder);
}

StepProfile::~StepProfile() = default;

std::string const& StepProfile::folder() const { return state_->folder; }

void StepProfile::begin_step() {
  auto& s = *state_;
  if (s.is_timed()) {
    s.observer.emplace(s.timeline);
    s.timeline.begin_step();
  } else if (s.is_counted()) {
    s.observer.emplace(s.uncounted);
    s.uncounted.begin_step();
    s.counts = std::make_unique<OperatorCounts>();
  } else if (s.is_traced()) {
    torch::profiler::impl::ProfilerConfig const config(torch::profiler::impl::ProfilerState::KINETO, /*report_input_shapes=*/true);
    tracing::prepareProfiler(config, activities(s.device));
    tracing::enableProfiler(config, activities(s.device),
                            {at::RecordScope::FUNCTION, at::RecordScope::USER_SCOPE, at::RecordScope::BACKWARD_FUNCTION});
  }
}

std::string StepProfile::end_step() {
  auto& s = *state_;
  std::string finished;
  if (s.is_timed()) {
    s.timeline.end_step();
  } else if (s.is_counted()) {
    s.uncounted.end_step();
  } else if (s.is_traced()) {
    tracing::disableProfiler()->save(s.folder + "/trace.json");
    finished = s.table();
    dist::write_text_file(s.folder + "/table.txt", finished);
    dist::write_text_file(s.folder + "/operators.txt", s.operators());
  }
  if (s.is_counted()) s.counts->stop();
  s.observer.reset();
  ++s.done;
  return finished;
}

std::string StepProfile::State::table() const {
  double const rate = product_rate(device, compute), step = timeline.step_ms();
  std::string text = fmt::format("{} steps of {:.2f} ms (rank 0; by the host's clock {:.2f}); peak: {:.1f} GFLOP/s, of one large {} product here\n",
                                 timeline.steps(), step, timeline.host_ms(), 1e-9 * rate,
                                 compute == model::ComputeType::bf16 ? "bf16" : "fp32");
  text += "of peak: of all that ran; MFU: without what is run again (stages named so, the scores in a backward of attention)\n";
  text += fmt::format("{:<24} {:>9} {:>7} {:>9} {:>9} {:>8} {:>7} {:>9} {:>9}\n", "stage", "ms", "share", "GFLOP", "GFLOP/s", "of peak",
                      "MFU", "MB moved", "operators");
  auto const row = [&](std::string const& name, double ms, StageCounts const& c) {
    auto const per_second = [ms](double flops) { return ms > 0 ? flops / (1e-3 * ms) : 0; };
    text += fmt::format("{:<24} {:>9.3f} {:>6.1f}% {:>9.3f} {:>9.1f} {:>7.1f}% {:>6.1f}% {:>9.1f} {:>9}\n", name, ms, 100 * ms / step,
                        1e-9 * c.flops, 1e-9 * per_second(c.flops), 100 * per_second(c.flops) / rate, 100 * per_second(c.useful) / rate,
                        1e-6 * c.bytes, c.operators);
  };
  for (auto const& stage : timeline.stages()) row(stage, timeline.ms(stage), counts->of(stage));
  row("other", timeline.ms("other"), counts->of("other"));
  row("sum", step, counts->sum());
  return text;
}

// Those that move or compute nothing (views, what calls others) are left out.
std::string StepProfile::State::operators() const {
  std::string text = fmt::format("{:<24} {:<48} {:>6} {:>10} {:>10}\n", "stage", "operator", "calls", "GFLOP", "MB moved");
  auto stages = timeline.stages();
  stages.push_back("other");
  for (auto const& stage : stages) {
    auto const by_name = counts->operators_of(stage);
    std::vector<std::pair<std::string, StageCounts>> rows(by_name.begin(), by_name.end());
    std::erase_if(rows, [](auto const& one) { return one.second.bytes == 0 && one.second.flops == 0; });
    std::stable_sort(rows.begin(), rows.end(), [](auto const& a, auto const& b) { return a.second.bytes > b.second.bytes; });
    for (auto const& [name, c] : rows)
      text += fmt::format("{:<24} {:<48} {:>6} {:>10.4f} {:>10.4f}\n", stage, name, c.operators, 1e-9 * c.flops, 1e-6 * c.bytes);
  }
  return text;
}

}  // namespace duoflow::launch
