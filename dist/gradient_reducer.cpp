#include "dist/gradient_reducer.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "dist/reproducible_sum.h"
#include "dist/side_stream.h"

namespace duoflow::dist {
namespace {

struct Bucket {
  at::Tensor gradients;  // its range of the flat buffer, padding included
  at::Tensor own;        // this rank's slices of it
  at::Tensor half;       // bf16: the whole bucket as it travels
  at::Tensor pieces;     // exchanged: [ranks, slice], every rank's sum for the own slices
  std::int64_t begin = 0, end = 0;
  std::int64_t missing = 0;  // used parameters whose gradient is not complete
  bool used = false, started = false;
  Pending pending;
};

struct Member {
  std::size_t bucket = 0;
  bool used = false, arrived = false;
};

// How many all-to-alls are on their way before the first is waited for: the sums and all-gathers of earlier buckets lie
// between those of later ones, at the same place on every rank.
constexpr std::size_t exchanges_ahead = 2;

}  // namespace

struct GradientReducer::State {
  Communicator communicator;
  FlatBuffer& buffer;
  ReductionOptions options;
  std::vector<Member> members;  // by range
  std::vector<Bucket> buckets;
  at::Tensor scratch, half;
  std::optional<ShardSums> shard_sums;
  std::optional<SideStream> side;  // reproducible: sums run beside the backward
  std::size_t next_bucket = 0;     // buckets before it are started or not used
  std::size_t next_exchange = 0;   // started buckets before it have left the all-to-all
  bool armed = false;
  std::int64_t collectives_started = 0;
  double waited_ms = 0;  // within hooks
  std::string late;  // the first parameter whose gradient grew after its bucket was sent
  std::vector<std::shared_ptr<torch::autograd::Node>> accumulators;
  std::vector<std::uintptr_t> hooks;

  State(Communicator group, FlatBuffer& flat_buffer, ReductionOptions const& reduction)
      : communicator(std::move(group)), buffer(flat_buffer), options(reduction) {}
  bool exchanges() const { return options.reproducible || options.bf16; }
  std::size_t number(Bucket const& bucket) const { return static_cast<std::size_t>(&bucket - buckets.data()); }
  void make_buckets();
  void gradient_accumulated(std::size_t index);
  void start_filled_buckets();
  void start(Bucket& bucket);
  void sum_exchanged(std::size_t end);
  void move_own_together();
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
    start(bucket);
    if (exchanges() && next_bucket >= exchanges_ahead) {
      sum_exchanged(next_bucket - exchanges_ahead + 1);
    }
  }
}

void GradientReducer::State::start(Bucket& bucket) {
  at::NoGradGuard no_grad;
  bucket.started = true;
  ++collectives_started;
  CollectiveLabel const label("bucket", number(bucket));
  if (shard_sums) {
    shard_sums->add_to_last(bucket.begin, bucket.end);
  }
  if (exchanges()) {
    if (options.bf16) bucket.half.copy_(bucket.gradients);
    bucket.pending = all_to_all(communicator, bucket.pieces, options.bf16 ? bucket.half : bucket.gradients);
  } else if (options.sharded) {
    bucket.pending = reduce_scatter(communicator, bucket.own, bucket.gradients);
  } else {
    bucket.pending = all_reduce(communicator, bucket.gradients);
  }
}

// Buckets before `end` whose all-to-all was started: their sums, and the all-gather of these.
void GradientReducer::State::sum_exchanged(std::size_t end) {
  at::NoGradGuard no_grad;
  auto const beside = side->scope();
  std::int64_t const rank = communicator.rank();
  for (; next_exchange < end; ++next_exchange) {
    Bucket& bucket = buckets[next_exchange];
    if (!bucket.started) {
      continue;
    }
    auto const began = std::chrono::steady_clock::now();
    bucket.pending.wait();
    if (armed) waited_ms += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
    at::Tensor const travelling = options.bf16 ? bucket.half : bucket.gradients;
    at::Tensor const mine =
        options.sharded ? bucket.own : travelling.narrow(0, rank * bucket.own.numel(), bucket.own.numel());
    if (options.bf16) {
      mine.copy_(bucket.pieces.sum(0, /*keepdim=*/false, at::kFloat));
    } else {
      add_along_tree(bucket.pieces);
      mine.copy_(bucket.pieces.select(0, 0));
    }
    CollectiveLabel const label("bucket", number(bucket));
    bucket.pending = options.sharded ? Pending() : all_gather(communicator, travelling, mine);
  }
}

// The own slices of all buckets to the begin of the buffer, one after the other: a slice never moves beyond its bucket,
// so none that is still to be moved is written over.
void GradientReducer::State::move_own_together() {
  std::int64_t const ranks = communicator.size();
  for (Bucket const& bucket : buckets) {
    std::int64_t const from = bucket.begin + communicator.rank() * bucket.own.numel(), to = bucket.begin / ranks;
    at::Tensor const place = buffer.gradients().narrow(0, to, bucket.own.numel());
    if (!bucket.used) {
      place.zero_();
    } else if (from != to) {
      bool const overlap = from < to + bucket.own.numel();
      place.copy_(overlap ? bucket.own.clone() : bucket.own);
    }
  }
}

void GradientReducer::State::check_all_arrived() const {
  std::vector<std::string> missing;
  for (std::size_t i = 0; i < members.size(); ++i) {
    if (members[i].used && !members[i].arrived) {
      missing.push_back(name(i));
    }
    if (!buffer.tensors()[i].grad().is_alias_of(buffer.gradients())) {
      throw std::logic_error(
          fmt::format("the gradient of {} is no longer a range of the flat buffer (something replaced "
                      "or cleared .grad), clear gradients with GradientReducer::zero()",
                      name(i)));
    }
  }
  if (!missing.empty()) {
    std::size_t const shown = std::min<std::size_t>(missing.size(), 5);
    throw std::runtime_error(fmt::format(
        "no gradient arrived for {}{} on rank {} (declared as used in this update), take it out of the used set or out "
        "of "
        "the trainable parameters",
        fmt::join(missing.begin(), missing.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
        missing.size() > shown ? fmt::format(" and {} more", missing.size() - shown) : "", communicator.rank()));
  }
  if (!late.empty()) {
    throw std::runtime_error(
        fmt::format("the gradient of {} grew after its bucket was sent (a backward inside the backward, "
                    "or a second one after arm(), uses it), use non re-entrant checkpointing",
                    late));
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

void GradientReducer::State::make_buckets() {
  members.resize(buffer.ranges().size());
  std::int64_t const ranks = communicator.size();
  if (options.bf16 && options.reproducible) {
    throw std::invalid_argument(
        "gradients in bf16 and reproducible sums exclude each other (what is rounded would depend "
        "on the number of ranks), choose one");
  }
  bool const in_slices = options.sharded || exchanges();
  if (in_slices) {
    owned_ranges(buffer, communicator.rank(), communicator.size());  // throws when the layout does not fit the ranks
  }
  at::TensorOptions const like = buffer.gradients().options();
  if (exchanges()) {
    scratch = at::zeros({buffer.size()}, options.bf16 ? like.dtype(at::kBFloat16) : like);
    side.emplace(buffer.gradients().device());
  }
  if (options.bf16) half = at::zeros_like(scratch);
  if (options.reproducible) shard_sums.emplace(buffer.gradients(), options.shards);
  for (BucketRange const& range : buffer.buckets()) {
    for (std::size_t i = 0; i < range.parameters; ++i) {
      members[range.first_parameter + i].bucket = buckets.size();
    }
    Bucket& bucket = buckets.emplace_back();
    std::int64_t const size = range.end - range.begin, slice = size / ranks;
    bucket.begin = range.begin;
    bucket.end = range.end;
    bucket.gradients = buffer.gradients().narrow(0, range.begin, size);
    if (in_slices) bucket.own = bucket.gradients.narrow(0, communicator.rank() * slice, slice);
    if (options.bf16) bucket.half = half.narrow(0, range.begin, size);
    if (exchanges()) {
      bucket.pieces = scratch.narrow(0, range.begin, size).view({ranks, slice});
    }
  }
}

GradientReducer::GradientReducer(Communicator communicator, FlatBuffer& buffer, ReductionOptions const& options)
    : state_(std::make_shared<State>(std::move(communicator), buffer, options)) {
  state_->make_buckets();
  auto const& ranges = buffer.ranges();
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
  if (state_->shard_sums) {
    state_->shard_sums->clear();
  }
}

void GradientReducer::shard_done(std::int64_t shard, std::set<std::string> const& names) {
  if (!state_->shard_sums) {
    throw std::logic_error("shard_done() without reproducible reduction");
  }
  auto const& ranges = state_->buffer.ranges();
  for (std::size_t i = 0; i < ranges.size();) {  // runs of parameters side by side, with the padding between them
    std::size_t end = i;
    while (end < ranges.size() && names.count(ranges[end].name) > 0) ++end;
    if (end > i) {
      state_->shard_sums->take(shard, ranges[i].offset, ranges[end - 1].offset + ranges[end - 1].numel);
    }
    i = std::max(end, i + 1);
  }
}

at::Tensor GradientReducer::own_gradients() const {
  at::Tensor const gradients = state_->buffer.gradients();
  return state_->options.sharded ? gradients.narrow(0, 0, gradients.numel() / state_->communicator.size()) : gradients;
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
  state_->next_bucket = state_->next_exchange = 0;
  state_->late.clear();
  state_->armed = true;
}

void GradientReducer::finish() {
  if (!state_->armed) {
    throw std::logic_error("finish() without arm() (nothing was reduced), arm() before the last micro-step's backward");
  }
  at::NoGradGuard no_grad;
  state_->armed = false;
  state_->check_all_arrived();
  if (state_->exchanges()) {
    state_->sum_exchanged(state_->buckets.size());
    state_->side->join();
  }
  for (Bucket& bucket : state_->buckets) {
    if (bucket.started) {
      bucket.pending.wait();
      bucket.pending = Pending();
      if (bucket.half.defined() && !state_->options.sharded) bucket.gradients.copy_(bucket.half);
    }
  }
  if (state_->options.sharded) state_->move_own_together();
}

void GradientReducer::abandon() {
  state_->armed = false;
  state_->waited_ms = 0;
  for (Bucket& bucket : state_->buckets) bucket.pending = Pending();
}

double GradientReducer::take_waited_ms() { return std::exchange(state_->waited_ms, 0); }
std::int64_t GradientReducer::collectives_started() const { return state_->collectives_started; }
std::int64_t GradientReducer::bucket_count() const { return static_cast<std::int64_t>(state_->buckets.size()); }

}  // namespace duoflow::dist
