#include "dist/gradient_reducer.h"

#include <algorithm>
#include <functional>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

namespace duoflow::dist {
namespace {

struct Bucket {
  at::Tensor gradients;  // its range of the flat buffer, padding included
  std::int64_t missing = 0;   // used parameters whose gradient is not complete
  bool used = false, started = false;
  Pending pending;
};

struct Member {
  std::size_t bucket = 0;
  bool used = false, arrived = false;
};

// Cuts at parameter borders, which are 16-element borders: a bucket is closed when it has reached its size.
std::vector<std::vector<std::size_t>> cut_into_buckets(std::vector<FlatRange> const& ranges,
                                                       GradientReducerOptions const& options) {
  std::vector<std::vector<std::size_t>> buckets;
  double bytes = 0, limit = 0;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    if (bytes >= limit) {
      limit = (buckets.empty() ? options.first_bucket_mib : options.bucket_mib) * 1024 * 1024;
      bytes = 0;
      buckets.emplace_back();
    }
    buckets.back().push_back(i);
    bytes += static_cast<double>(ranges[i].numel) * sizeof(float);
  }
  return buckets;
}

}  // namespace

struct GradientReducer::State {
  Communicator communicator;
  FlatBuffer& buffer;
  std::vector<Member> members;  // by range
  std::vector<Bucket> buckets;
  std::size_t next_bucket = 0;  // buckets before it are started or not used
  bool armed = false;
  std::int64_t collectives_started = 0;
  std::string late;  // the first parameter whose gradient grew after its bucket was sent
  std::vector<std::shared_ptr<torch::autograd::Node>> accumulators;
  std::vector<std::uintptr_t> hooks;

  State(Communicator group, FlatBuffer& flat_buffer) : communicator(std::move(group)), buffer(flat_buffer) {}
  void gradient_accumulated(std::size_t index);
  void start_filled_buckets();
  std::string const& name(std::size_t index) const { return buffer.ranges()[index].name; }
  void check_all_arrived() const;
};

// The engine adds up the contributions of one backward before the accumulator runs, so its first run means that the
// gradient is complete. A backward inside the backward (re-entrant activation checkpointing) may run it again: that is
// harmless while the bucket has not left, and an error afterwards.
void GradientReducer::State::gradient_accumulated(std::size_t index) {
  Member& member = members[index];
  if (!armed || !member.used) {
    return;
  }
  Bucket& bucket = buckets[member.bucket];
  if (bucket.started) {
    late = late.empty() ? name(index) : late;
    return;
  }
  if (!member.arrived) {
    member.arrived = true;
    --bucket.missing;
    start_filled_buckets();
  }
}

void GradientReducer::State::start_filled_buckets() {
  for (; next_bucket < buckets.size(); ++next_bucket) {
    Bucket& bucket = buckets[next_bucket];
    if (!bucket.used) {
      continue;
    }
    if (bucket.missing > 0) {
      return;
    }
    bucket.started = true;
    ++collectives_started;
    CollectiveLabel const label("bucket", next_bucket);
    bucket.pending = all_reduce(communicator, bucket.gradients);
  }
}

void GradientReducer::State::check_all_arrived() const {
  std::vector<std::string> missing;
  for (std::size_t i = 0; i < members.size(); ++i) {
    if (members[i].used && !members[i].arrived) {
      missing.push_back(name(i));
    }
    if (!buffer.tensors()[i].grad().is_alias_of(buffer.gradients())) {
      throw std::logic_error(fmt::format("the gradient of {} is no longer a range of the flat buffer (something replaced "
                                         "or cleared .grad), clear gradients with GradientReducer::zero()", name(i)));
    }
  }
  if (!missing.empty()) {
    std::size_t const shown = std::min<std::size_t>(missing.size(), 5);
    throw std::runtime_error(fmt::format(
        "no gradient arrived for {}{} on rank {} (declared as used in this update), take it out of the used set or out of "
        "the trainable parameters", fmt::join(missing.begin(), missing.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
        missing.size() > shown ? fmt::format(" and {} more", missing.size() - shown) : "", communicator.rank()));
  }
  if (!late.empty()) {
    throw std::runtime_error(fmt::format("the gradient of {} grew after its bucket was sent (a backward inside the backward, "
                                         "or a second one after arm(), uses it), use non re-entrant checkpointing", late));
  }
}

namespace {

class AccumulatedHook : public torch::autograd::FunctionPostHook {
 public:
  explicit AccumulatedHook(std::function<void()> action) : action_(std::move(action)) {}
  torch::autograd::variable_list operator()(torch::autograd::variable_list const& outputs,
                                            torch::autograd::variable_list const&) override {
    action_();
    return outputs;
  }

 private:
  std::function<void()> action_;
};

}  // namespace

GradientReducer::GradientReducer(Communicator communicator, FlatBuffer& buffer, GradientReducerOptions const& options)
    : state_(std::make_shared<State>(std::move(communicator), buffer)) {
  if (options.bucket_mib <= 0 || options.first_bucket_mib <= 0) {
    throw std::invalid_argument(fmt::format("bucket sizes are {} and {} MiB, they must be positive",
                                            options.first_bucket_mib, options.bucket_mib));
  }
  auto const& ranges = buffer.ranges();
  state_->members.resize(ranges.size());
  for (auto const& bucket_members : cut_into_buckets(ranges, options)) {
    std::int64_t const begin = ranges[bucket_members.front()].offset;
    std::size_t const after = bucket_members.back() + 1;
    std::int64_t const end = after < ranges.size() ? ranges[after].offset : buffer.size();
    for (std::size_t const index : bucket_members) {
      state_->members[index].bucket = state_->buckets.size();
    }
    state_->buckets.emplace_back().gradients = buffer.gradients().narrow(0, begin, end - begin);
  }
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    // Autograd itself only holds a weak reference to the accumulator; without ours the hook would go with it.
    auto const accumulator = torch::autograd::impl::grad_accumulator(buffer.tensors()[i]);
    state_->hooks.push_back(accumulator->add_post_hook(
        std::make_unique<AccumulatedHook>([state = state_.get(), i] { state->gradient_accumulated(i); })));
    state_->accumulators.push_back(accumulator);
  }
}

GradientReducer::~GradientReducer() {
  for (std::size_t i = 0; i < state_->hooks.size(); ++i) {
    state_->accumulators[i]->del_post_hook(state_->hooks[i]);
  }
}

void GradientReducer::zero() {
  if (state_->armed) {
    throw std::logic_error("zero() between arm() and finish() (buckets may be under way)");
  }
  at::NoGradGuard no_grad;
  state_->buffer.gradients().zero_();
}

void GradientReducer::arm(std::set<std::string> const& used, std::set<std::string> const& complete) {
  if (state_->armed) {
    throw std::logic_error("arm() twice without finish() (an update has one last micro-step)");
  }
  for (Bucket& bucket : state_->buckets) {
    bucket.missing = 0;
    bucket.used = bucket.started = false;
  }
  std::size_t found = 0;
  for (std::size_t i = 0; i < state_->members.size(); ++i) {
    Member& member = state_->members[i];
    member.used = used.empty() || used.count(state_->name(i)) > 0;
    member.arrived = member.used && complete.count(state_->name(i)) > 0;
    found += member.used ? 1 : 0;
    state_->buckets[member.bucket].missing += member.used && !member.arrived ? 1 : 0;
    state_->buckets[member.bucket].used |= member.used;
  }
  if (!used.empty() && found != used.size()) {
    for (std::string const& name : used) {
      auto const& ranges = state_->buffer.ranges();
      if (std::none_of(ranges.begin(), ranges.end(), [&](FlatRange const& range) { return range.name == name; })) {
        throw std::invalid_argument(fmt::format("{} is declared as used but is no trainable parameter", name));
      }
    }
  }
  state_->next_bucket = 0;
  state_->late.clear();
  state_->armed = true;
}

void GradientReducer::finish() {
  if (!state_->armed) {
    throw std::logic_error("finish() without arm() (nothing was reduced), arm() before the last micro-step's backward");
  }
  state_->armed = false;
  state_->check_all_arrived();
  for (Bucket& bucket : state_->buckets) {
    if (bucket.started) {
      bucket.pending.wait();
      bucket.pending = Pending();
    }
  }
}

std::int64_t GradientReducer::collectives_started() const { return state_->collectives_started; }
std::int64_t GradientReducer::bucket_count() const { return static_cast<std::int64_t>(state_->buckets.size()); }

}  // namespace duoflow::dist
