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
#include "dist/host_collective.h"

namespace duoflow::dist {
namespace {

// One collective of the group: filled by the ranks as they arrive; the last one to arrive computes it for all.
struct Meeting {
  std::vector<std::optional<Collective>> arrived;
  int missing = 0;
  bool done = false;
  std::string failure;  // why it cannot be completed
};

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
  std::vector<Collective> calls;
  for (auto const& call : meeting->arrived) {
    calls.push_back(*call);
  }
  std::string problem = disagreement(calls);
  try {
    if (problem.empty()) {
      compute(calls);
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
