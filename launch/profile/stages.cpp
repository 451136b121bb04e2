#include "launch/profile/stages.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include <ATen/record_function.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/profiler/stubs/base.h>

namespace duoflow::launch {
namespace {

constexpr char const* kOther = "other";

// RecordFunction's callbacks are plain functions.
StageTimeline* observed = nullptr;
std::atomic<char const*> innermost{kOther};
std::atomic<bool> inside_again{false};

std::unique_ptr<at::ObserverContext> on_enter(at::RecordFunction const& scope) {
  observed->enter(scope.name());
  if (!observed->device().is_cpu()) torch::profiler::impl::cudaStubs()->rangePush(scope.name());
  return nullptr;
}
void on_leave(at::RecordFunction const&, at::ObserverContext*) {
  observed->leave();
  if (!observed->device().is_cpu()) torch::profiler::impl::cudaStubs()->rangePop();
}

}  // namespace

char const* StageTimeline::current() { return innermost.load(std::memory_order_relaxed); }

bool StageTimeline::again() { return inside_again.load(std::memory_order_relaxed); }

void StageTimeline::begin_step() {
  marks_.clear();
  open_.clear();
  mark();
}

void StageTimeline::enter(std::string const& stage) {
  open_.push_back(stage);
  mark();
}

void StageTimeline::leave() {
  open_.pop_back();
  mark();
}

void StageTimeline::mark() {
  std::string const stage = open_.empty() ? kOther : open_.back();
  auto const known = std::find(order_.begin(), order_.end(), stage);
  if (known == order_.end() && stage != kOther) order_.push_back(stage);
  // Literals of the code live as long as the process; the copies in order_ do not stay where they are.
  static std::map<std::string, std::unique_ptr<std::string>> names;
  auto& name = names[stage];
  if (!name) name = std::make_unique<std::string>(stage);
  innermost = name->c_str();
  inside_again = std::any_of(open_.begin(), open_.end(), [](std::string const& scope) { return scope.ends_with(" again"); });
  Mark next{std::chrono::steady_clock::now(), std::nullopt, stage};
  if (!device_.is_cpu()) {
    next.device.emplace(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
    next.device->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  }
  marks_.push_back(std::move(next));
}

void StageTimeline::end_step() {
  mark();
  if (!device_.is_cpu()) marks_.back().device->synchronize();
  for (std::size_t i = 0; i + 1 < marks_.size(); ++i) {
    auto const& from = marks_[i];
    auto const& to = marks_[i + 1];
    sum_ms_[from.stage] += device_.is_cpu() ? std::chrono::duration<double, std::milli>(to.host - from.host).count()
                                            : from.device->elapsedTime(*to.device);
  }
  host_ms_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - marks_.front().host).count();
  ++steps_;
}

double StageTimeline::ms(std::string const& stage) const {
  auto const found = sum_ms_.find(stage);
  return found == sum_ms_.end() || steps_ == 0 ? 0 : found->second / static_cast<double>(steps_);
}

double StageTimeline::step_ms() const {
  double sum = 0;
  for (auto const& [stage, ms] : sum_ms_) sum += ms;
  return steps_ == 0 ? 0 : sum / static_cast<double>(steps_);
}

StageObserver::StageObserver(StageTimeline& timeline) {
  observed = &timeline;
  handle_ = at::addGlobalCallback(
      at::RecordFunctionCallback(on_enter, on_leave).scopes({at::RecordScope::USER_SCOPE}));
}

StageObserver::~StageObserver() {
  at::removeCallback(handle_);
  innermost = kOther;
  inside_again = false;
  observed = nullptr;
}

}  // namespace duoflow::launch
