#include "dist/thread_backend.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "dist/c10d_backend.h"
#include "dist/error.h"

namespace duoflow::dist {
namespace {

// One collective of the group: filled by the ranks as they arrive; the last one to arrive computes it for all.
struct Meeting {
  std::vector<std::optional<Collective>> arrived;
  int missing = 0;
  bool done = false;
  std::string failure;  // why it cannot be completed
};

void reduce_into(at::Tensor const& sum, at::Tensor const& part, c10d::ReduceOp::RedOpType op) {
  switch (op) {
    case c10d::ReduceOp::SUM:
      sum.add_(part);
      return;
    case c10d::ReduceOp::MAX:
      at::maximum_out(const_cast<at::Tensor&>(sum), sum, part);
      return;
    case c10d::ReduceOp::MIN:
      at::minimum_out(const_cast<at::Tensor&>(sum), sum, part);
      return;
    default:
      throw std::logic_error("reduction that the interface does not have");
  }
}

at::Tensor reduce_in_rank_order(Meeting const& meeting) {
  Collective const& first = *meeting.arrived.front();
  bool const scatters = first.kind == CollectiveKind::reduce_scatter;
  at::Tensor const sum = (scatters ? first.input : first.output).clone();
  for (std::size_t rank = 1; rank < meeting.arrived.size(); ++rank) {
    Collective const& other = *meeting.arrived[rank];
    reduce_into(sum, (scatters ? other.input : other.output).view_as(sum), first.op);
  }
  return sum;
}

// Piece r of every rank's input, in rank order, for rank r.
void exchange_pieces(Meeting const& meeting) {
  auto const ranks = static_cast<std::int64_t>(meeting.arrived.size());
  std::vector<at::Tensor> inputs;
  for (auto const& rank : meeting.arrived) {
    inputs.push_back(rank->input.clone().view({ranks, rank->input.numel() / ranks}));
  }
  at::Tensor const all = at::stack(inputs);  // [from, to, piece]
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    at::Tensor const output = meeting.arrived[static_cast<std::size_t>(rank)]->output;
    output.copy_(all.select(1, rank).reshape(output.sizes()));
  }
}

void compute(Meeting const& meeting) {
  at::NoGradGuard no_grad;
  Collective const& first = *meeting.arrived.front();
  auto const ranks = static_cast<std::int64_t>(meeting.arrived.size());
  if (first.kind == CollectiveKind::barrier) {
    return;
  }
  if (first.kind == CollectiveKind::all_to_all) {
    exchange_pieces(meeting);
    return;
  }
  at::Tensor result;
  if (first.kind == CollectiveKind::broadcast) {
    result = meeting.arrived[static_cast<std::size_t>(first.root)]->output.clone();
  } else if (first.kind == CollectiveKind::all_gather) {
    std::vector<at::Tensor> inputs;
    for (auto const& rank : meeting.arrived) {
      inputs.push_back(rank->input.view({-1}));
    }
    result = at::cat(inputs);
  } else {
    result = reduce_in_rank_order(meeting);
  }
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    at::Tensor const output = meeting.arrived[static_cast<std::size_t>(rank)]->output;
    bool const scatters = first.kind == CollectiveKind::reduce_scatter;
    at::Tensor const mine = scatters ? result.view({-1}).narrow(0, rank * output.numel(), output.numel()) : result;
    output.copy_(mine.view(output.sizes()));
  }
}

// "" if the ranks asked for the same thing.
std::string disagreement(Meeting const& meeting) {
  Collective const& first = *meeting.arrived.front();
  for (std::size_t rank = 1; rank < meeting.arrived.size(); ++rank) {
    Collective const& other = *meeting.arrived[rank];
    if (other.describe() != first.describe() || other.op != first.op || other.root != first.root) {
      return fmt::format("rank 0 called {}, rank {} called {} (all ranks must make the same calls in the same order)",
                         first.describe(), rank, other.describe());
    }
  }
  return "";
}

}  // namespace

struct ThreadGroup::State {
  int size = 0;
  double timeout_s = 0;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::shared_ptr<Meeting>> meetings;  // sequence first_sequence, first_sequence + 1, ...
  std::int64_t first_sequence = 1;
  std::vector<std::int64_t> issued;  // by rank
  std::string failure;               // set once: the group is broken

  std::shared_ptr<Meeting> arrive(int rank, Collective& collective);
  void fail_locked(std::string const& reason);
};

std::shared_ptr<Meeting> ThreadGroup::State::arrive(int rank, Collective& collective) {
  std::lock_guard lock(mutex);
  collective.sequence = ++issued[static_cast<std::size_t>(rank)];
  if (!failure.empty()) {
    auto meeting = std::make_shared<Meeting>();
    meeting->failure = failure;
    return meeting;
  }
  while (first_sequence + static_cast<std::int64_t>(meetings.size()) <= collective.sequence) {
    auto meeting = std::make_shared<Meeting>();
    meeting->arrived.resize(static_cast<std::size_t>(size));
    meeting->missing = size;
    meetings.push_back(meeting);
  }
  auto meeting = meetings[static_cast<std::size_t>(collective.sequence - first_sequence)];
  meeting->arrived[static_cast<std::size_t>(rank)] = collective;
  if (--meeting->missing > 0) {
    return meeting;
  }
  // Every rank issues in order, so meetings complete in order too: this one is the oldest.
  meetings.pop_front();
  ++first_sequence;
  std::string problem = disagreement(*meeting);
  try {
    if (problem.empty()) {
      compute(*meeting);
      meeting->done = true;
      meeting->arrived.clear();
    }
  } catch (std::exception const& error) {
    problem = fmt::format("{} cannot be computed ({})", collective.describe(), error.what());
  }
  if (!meeting->done) {
    meeting->failure = problem;
    fail_locked(problem);
  }
  changed.notify_all();
  return meeting;
}

void ThreadGroup::State::fail_locked(std::string const& reason) {
  if (failure.empty()) {
    failure = reason;
  }
  for (auto const& meeting : meetings) {
    meeting->failure = failure;
  }
  meetings.clear();
  changed.notify_all();
}

namespace {

class ThreadWork : public c10d::Work {
 public:
  ThreadWork(std::mutex& mutex, std::condition_variable& changed, double timeout_s, std::shared_ptr<void> owner,
             std::shared_ptr<Meeting> meeting, Collective collective)
      : group_mutex_(mutex),
        changed_(changed),
        timeout_s_(timeout_s),
        owner_(std::move(owner)),
        meeting_(std::move(meeting)),
        collective_(std::move(collective)) {}

  bool wait(std::chrono::milliseconds) override {
    std::unique_lock lock(group_mutex_);
    auto const deadline = collective_.issued + std::chrono::duration<double>(timeout_s_);
    bool const in_time =
        changed_.wait_until(lock, deadline, [this] { return meeting_->done || !meeting_->failure.empty(); });
    if (!in_time) {
      throw PeerError(fmt::format("{} is not complete after {} (rank {} has not arrived), see what it is doing",
                                  collective_.describe(), collective_.elapsed(), missing_ranks()));
    }
    if (!meeting_->failure.empty()) {
      throw PeerError(meeting_->failure);
    }
    return true;
  }

 private:
  std::string missing_ranks() const {
    std::vector<std::size_t> ranks;
    for (std::size_t rank = 0; rank < meeting_->arrived.size(); ++rank) {
      if (!meeting_->arrived[rank]) {
        ranks.push_back(rank);
      }
    }
    return fmt::format("{}", fmt::join(ranks, ", "));
  }

  std::mutex& group_mutex_;
  std::condition_variable& changed_;
  double timeout_s_;
  std::shared_ptr<void> owner_;  // keeps the mutex and the condition alive
  std::shared_ptr<Meeting> meeting_;
  Collective collective_;
};

}  // namespace

class ThreadBackend : public HostBackend {
 public:
  ThreadBackend(int rank, std::shared_ptr<ThreadGroup::State> group)
      : HostBackend(rank, group->size), group_(std::move(group)) {}
  std::string const getBackendName() const override { return "threads"; }
  c10::intrusive_ptr<c10d::Work> submit(Collective collective) override {
    auto meeting = group_->arrive(rank_, collective);
    return c10::make_intrusive<ThreadWork>(group_->mutex, group_->changed, group_->timeout_s, group_,
                                           std::move(meeting), std::move(collective));
  }

 private:
  std::shared_ptr<ThreadGroup::State> group_;
};

ThreadGroup::ThreadGroup(int size, double timeout_s) : state_(std::make_shared<State>()) {
  if (size < 1) {
    throw std::invalid_argument(fmt::format("a group of {} ranks (needs at least one)", size));
  }
  state_->size = size;
  state_->timeout_s = timeout_s;
  state_->issued.resize(static_cast<std::size_t>(size));
}

Communicator ThreadGroup::communicator(int rank) const {
  return Communicator(wrap_backend(c10::make_intrusive<ThreadBackend>(rank, state_)));
}

void ThreadGroup::fail(int rank, std::string const& reason) {
  std::lock_guard lock(state_->mutex);
  state_->fail_locked(fmt::format("rank {} failed ({})", rank, reason));
}

namespace {

[[noreturn]] void rethrow_with_rank(int rank, std::exception_ptr const& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (PeerError const& error) {
    throw PeerError(fmt::format("rank {}: {}", rank, error.what()));
  } catch (CheckpointError const& error) {
    throw CheckpointError(fmt::format("rank {}: {}", rank, error.what()));
  } catch (std::exception const& error) {
    throw std::runtime_error(fmt::format("rank {}: {}", rank, error.what()));
  }
}

}  // namespace

void run_ranks(int size, std::function<void(Communicator const&)> const& body, double timeout_s) {
  ThreadGroup group(size, timeout_s);
  std::mutex mutex;
  int failed_rank = -1;
  std::exception_ptr first_failure;
  auto const run_rank = [&](int rank) {
    try {
      body(group.communicator(rank));
      group.fail(rank, "it has ended, without the collective that others wait for");
    } catch (std::exception const& error) {
      {
        std::lock_guard lock(mutex);
        if (!first_failure) {
          first_failure = std::current_exception();
          failed_rank = rank;
        }
      }
      group.fail(rank, error.what());
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back(run_rank, rank);
  }
  for (auto& thread : threads) {
    thread.join();
  }
  if (first_failure) {
    rethrow_with_rank(failed_rank, first_failure);
  }
}

}  // namespace duoflow::dist
