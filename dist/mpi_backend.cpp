// c10d::Backend over MPI. One communication thread makes every MPI call of the group: it starts non-blocking
// collectives in issue order and tests them between sleeps. A blocking MPI call would spin and take a core from the
// compute threads.

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <limits>
#include <mutex>
#include <thread>

#include <ATen/ATen.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dist/c10d_backend.h"
#include "dist/host_staging.h"
#include "dist/mpi_check.h"
#include "dist/mpi_exchange.h"
#include "dist/mpi_session.h"

namespace duoflow::dist {
namespace {

using std::chrono::microseconds;

// Sleeps between two tests grow by a quarter each: what has taken t is noticed at most t/5 late, and at most the
// longest late. benchmarks/scaling/collectives.cpp and overlap.py are how they were chosen.
constexpr microseconds shortest_sleep{10};
constexpr microseconds longest_sleep{500};

// A communication thread that has to wait for a compute thread's time slice (3 ms and more) lets the link run dry. A
// shorter slice of its own lets it go first whenever it wakes; it does not get more of the processor. Linux 6.12 and
// newer; without effect before.
void ask_for_short_slices() {
  struct {  // the kernel's sched_attr, whose header clashes with the C library's
    std::uint32_t size = 48, policy = 0;
    std::uint64_t flags = 0;
    std::int32_t nice = 0;
    std::uint32_t priority = 0;
    std::uint64_t runtime = 0, deadline = 0, period = 0;
  } attributes;
  static_assert(sizeof(attributes) == 48);
  if (syscall(SYS_sched_getattr, 0, &attributes, attributes.size, 0U) != 0) return;
  attributes.runtime = 100'000;  // ns, the shortest
  syscall(SYS_sched_setattr, 0, &attributes, 0U);
}

// Counts of MPI 3 are int. Longer all_reduce and broadcast are cut into pieces of this many elements.
constexpr std::int64_t longest_piece = std::int64_t{1} << 30;

template <c10d::ReduceOp::RedOpType op>
void reduce_bfloat16(void* in, void* in_out, int* length, MPI_Datatype*) {
  auto const* a = static_cast<c10::BFloat16 const*>(in);
  auto* b = static_cast<c10::BFloat16*>(in_out);
  for (int i = 0; i < *length; ++i) {
    float const x = a[i], y = b[i];
    if constexpr (op == c10d::ReduceOp::SUM) {
      b[i] = x + y;
    } else if constexpr (op == c10d::ReduceOp::MAX) {
      b[i] = std::max(x, y);
    } else {
      b[i] = std::min(x, y);
    }
  }
}

MPI_Datatype mpi_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return MPI_FLOAT;
    case at::kDouble:
      return MPI_DOUBLE;
    case at::kBFloat16:
      return MPI_UINT16_T;  // reduced by our own operations
    case at::kLong:
      return MPI_INT64_T;
    case at::kByte:
      return MPI_UINT8_T;
    default:
      throw std::logic_error(fmt::format("type {} has no MPI type here", c10::toString(type)));
  }
}

// The MPI operations of one communicator.
class Operations {
 public:
  Operations() {
    DUOFLOW_MPI_CHECK(MPI_Op_create(&reduce_bfloat16<c10d::ReduceOp::SUM>, 1, &bfloat16_sum_));
    DUOFLOW_MPI_CHECK(MPI_Op_create(&reduce_bfloat16<c10d::ReduceOp::MAX>, 1, &bfloat16_max_));
    DUOFLOW_MPI_CHECK(MPI_Op_create(&reduce_bfloat16<c10d::ReduceOp::MIN>, 1, &bfloat16_min_));
  }
  void free() {
    for (MPI_Op* op : {&bfloat16_sum_, &bfloat16_max_, &bfloat16_min_}) {
      DUOFLOW_MPI_CHECK(MPI_Op_free(op));
    }
  }
  MPI_Op get(at::ScalarType type, c10d::ReduceOp::RedOpType op) const {
    bool const is_bfloat16 = type == at::kBFloat16;
    switch (op) {
      case c10d::ReduceOp::SUM:
        return is_bfloat16 ? bfloat16_sum_ : MPI_SUM;
      case c10d::ReduceOp::MAX:
        return is_bfloat16 ? bfloat16_max_ : MPI_MAX;
      case c10d::ReduceOp::MIN:
        return is_bfloat16 ? bfloat16_min_ : MPI_MIN;
      default:
        throw std::logic_error("reduction that the interface does not have");
    }
  }

 private:
  MPI_Op bfloat16_sum_ = MPI_OP_NULL, bfloat16_max_ = MPI_OP_NULL, bfloat16_min_ = MPI_OP_NULL;
};

struct Task {
  Collective collective;
  c10::intrusive_ptr<HostWork> work;
  std::vector<MPI_Request> requests;
  std::unique_ptr<MpiExchange> exchange;  // a large sum
  bool gathering = false;                 // its second half
};

class MpiBackend : public HostBackend {
 public:
  MpiBackend(int rank, int size, MPI_Comm comm, MPI_Comm gather, Session& session, std::shared_ptr<Watchdog> watchdog)
      : HostBackend(rank, size),
        comm_(comm),
        gather_(gather),
        session_(session),
        watchdog_(std::move(watchdog)),
        thread_([this] { run(); }) {}
  ~MpiBackend() override { shutdown(); }
  std::string const getBackendName() const override { return "mpi"; }
  c10::intrusive_ptr<c10d::Work> submit(Collective collective) override;
  void shutdown() override;

 private:
  void run();
  void take_submitted();  // queue_mutex_ is held
  bool start_ready();
  void start(Task& task);
  bool complete_finished();
  bool go_on(Task& task);
  at::Tensor take_scratch(std::int64_t numel);
  void fail_everything(std::exception_ptr const& exception);

  MPI_Comm comm_, gather_;  // gather_: second halves of large sums
  Session& session_;
  std::shared_ptr<Watchdog> watchdog_;  // looks at the deadlines
  Operations operations_;
  std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::deque<Task> submitted_;       // under queue_mutex_
  std::exception_ptr failure_;       // under queue_mutex_; set once, then nothing is sent any more
  bool stopping_ = false;            // under queue_mutex_
  bool abandon_ = false;             // under queue_mutex_
  std::int64_t sequence_ = 0;        // under queue_mutex_
  std::deque<Task> waiting_;         // communication thread only: not yet given to MPI
  std::deque<Task> under_way_;       // communication thread only
  std::vector<at::Tensor> scratch_;  // communication thread only: free, for large sums
  std::thread thread_;               // last: it uses all of the above
};

void refuse_long(Collective const& collective) {
  bool const can_be_cut = collective.kind == CollectiveKind::all_reduce || collective.kind == CollectiveKind::broadcast;
  std::int64_t const numel =
      std::max(collective.output.numel(), collective.input.defined() ? collective.input.numel() : 0);
  if (!can_be_cut && numel > std::numeric_limits<int>::max()) {
    throw std::invalid_argument(fmt::format("{} moves {} elements (MPI counts to {}), use several smaller ones",
                                            collective.describe(), numel, std::numeric_limits<int>::max()));
  }
}

c10::intrusive_ptr<c10d::Work> MpiBackend::submit(Collective collective) {
  bool const is_barrier = collective.kind == CollectiveKind::barrier;
  std::unique_ptr<HostStaging> staging;
  if (!is_barrier) {
    refuse_long(collective);
    if (!collective.output.is_cpu()) {
      staging = std::make_unique<HostStaging>(collective);
    }
  }
  auto work = c10::make_intrusive<HostWork>(std::move(staging));
  {
    std::lock_guard lock(queue_mutex_);
    collective.sequence = ++sequence_;
    if (failure_) {
      work->fail(failure_);
      return work;
    }
    if (!is_barrier && collective.output.numel() == 0) {
      work->complete();
      return work;
    }
    watchdog_->issued(Group::host, collective.note());
    submitted_.push_back(Task{std::move(collective), work, {}, nullptr});
  }
  queue_changed_.notify_one();
  return work;
}

void MpiBackend::shutdown() {
  if (!thread_.joinable()) {
    return;
  }
  bool failed = false;
  {
    std::lock_guard lock(queue_mutex_);
    stopping_ = true;
    abandon_ = std::uncaught_exceptions() > 0;  // the peers may never come: waiting for them would hide the error
  }
  queue_changed_.notify_one();
  thread_.join();
  {
    std::lock_guard lock(queue_mutex_);
    failed = failure_ != nullptr;
  }
  if (!failed) {
    operations_.free();
    DUOFLOW_MPI_CHECK(MPI_Comm_free(&comm_));
    DUOFLOW_MPI_CHECK(MPI_Comm_free(&gather_));
  }
}

void MpiBackend::run() {
  // Without this the kernel rounds every sleep up by 50 us.
  prctl(PR_SET_TIMERSLACK, 1000UL);
  ask_for_short_slices();
  microseconds sleep = shortest_sleep;
  while (true) {
    try {
      {
        std::unique_lock lock(queue_mutex_);
        if (waiting_.empty() && under_way_.empty()) {
          queue_changed_.wait(lock, [this] { return stopping_ || !submitted_.empty(); });
          sleep = shortest_sleep;
        } else {
          queue_changed_.wait_for(lock, sleep, [this] { return abandon_ || !submitted_.empty(); });
        }
        if (stopping_ && submitted_.empty() && waiting_.empty() && under_way_.empty()) {
          return;
        }
        take_submitted();
      }
      bool const progress = start_ready() | complete_finished();
      sleep = progress ? shortest_sleep : std::min(sleep + sleep / 4, longest_sleep);
    } catch (std::exception const&) {
      fail_everything(std::current_exception());
      return;
    }
  }
}

void MpiBackend::take_submitted() {
  if (abandon_) {
    throw PeerError("the group was closed while collectives were under way (another error came first)");
  }
  std::move(submitted_.begin(), submitted_.end(), std::back_inserter(waiting_));
  submitted_.clear();
}

bool MpiBackend::start_ready() {
  bool started = false;
  while (!waiting_.empty() && waiting_.front().work->ready()) {
    under_way_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    start(under_way_.back());
    started = true;
  }
  return started;
}

void MpiBackend::start(Task& task) {
  Collective& c = task.collective;
  auto const request = [&task] { return &task.requests.emplace_back(MPI_REQUEST_NULL); };
  if (c.kind == CollectiveKind::barrier) {
    DUOFLOW_MPI_CHECK(MPI_Ibarrier(comm_, request()));
    return;
  }
  if (MpiExchange::takes(c, size_)) {
    task.exchange = std::make_unique<MpiExchange>(c, rank_, size_);
    task.exchange->start(take_scratch(task.exchange->scratch_numel()), comm_, task.requests);
    return;
  }
  MPI_Datatype const type = mpi_type(c.output.scalar_type());
  if (c.kind == CollectiveKind::reduce_scatter) {
    MPI_Op const op = operations_.get(c.output.scalar_type(), c.op);
    DUOFLOW_MPI_CHECK(MPI_Ireduce_scatter_block(c.input.data_ptr(), c.output.data_ptr(),
                                                static_cast<int>(c.output.numel()), type, op, comm_, request()));
    return;
  }
  if (c.kind == CollectiveKind::all_gather) {
    int const count = static_cast<int>(c.input.numel());
    auto const* const own = static_cast<char const*>(c.output.data_ptr()) + rank_ * c.input.nbytes();
    bool const in_place = own == c.input.data_ptr();  // MPI forbids the two to be the same memory otherwise
    DUOFLOW_MPI_CHECK(MPI_Iallgather(in_place ? MPI_IN_PLACE : c.input.data_ptr(), count, type, c.output.data_ptr(),
                                     count, type, comm_, request()));
    return;
  }
  if (c.kind == CollectiveKind::all_to_all) {
    int const count = static_cast<int>(c.input.numel() / size_);
    DUOFLOW_MPI_CHECK(
        MPI_Ialltoall(c.input.data_ptr(), count, type, c.output.data_ptr(), count, type, comm_, request()));
    return;
  }
  for (std::int64_t begin = 0; begin < c.output.numel(); begin += longest_piece) {
    int const count = static_cast<int>(std::min(longest_piece, c.output.numel() - begin));
    char* const data = static_cast<char*>(c.output.data_ptr()) + begin * c.output.element_size();
    if (c.kind == CollectiveKind::broadcast) {
      DUOFLOW_MPI_CHECK(MPI_Ibcast(data, count, type, c.root, comm_, request()));
    } else {
      MPI_Op const op = operations_.get(c.output.scalar_type(), c.op);
      DUOFLOW_MPI_CHECK(MPI_Iallreduce(MPI_IN_PLACE, data, count, type, op, comm_, request()));
    }
  }
}

at::Tensor MpiBackend::take_scratch(std::int64_t numel) {
  auto const fits = [numel](at::Tensor const& free) { return free.numel() >= numel; };
  auto const found = std::find_if(scratch_.begin(), scratch_.end(), fits);
  if (found == scratch_.end()) return at::empty({numel}, at::kFloat);
  at::Tensor const scratch = *found;
  scratch_.erase(found);
  return scratch;
}

// The first half of a large sum is done. True when the second half has been started.
bool MpiBackend::go_on(Task& task) {
  task.exchange->add_slices();
  scratch_.push_back(task.exchange->scratch());
  if (!task.exchange->gathers()) return false;
  task.gathering = true;
  task.requests.clear();
  task.exchange->start_gather(gather_, task.requests);
  return true;
}

bool MpiBackend::complete_finished() {
  bool completed = false;
  bool gather_waits = false;  // second halves start in the order of the collectives, as on every rank
  for (auto task = under_way_.begin(); task != under_way_.end();) {
    bool const before_gather = task->exchange && task->exchange->gathers() && !task->gathering;
    if (before_gather && gather_waits) {
      ++task;
      continue;
    }
    int done = 0;
    DUOFLOW_MPI_CHECK(
        MPI_Testall(static_cast<int>(task->requests.size()), task->requests.data(), &done, MPI_STATUSES_IGNORE));
    if (done == 0) {
      gather_waits = gather_waits || before_gather;
      ++task;
      continue;
    }
    if (task->exchange && !task->gathering && go_on(*task)) {
      completed = true;
      ++task;
      continue;
    }
    watchdog_->completed(Group::host, task->collective.sequence);
    task->work->complete();
    task = under_way_.erase(task);
    completed = true;
  }
  return completed;
}

void MpiBackend::fail_everything(std::exception_ptr const& exception) {
  session_.mark_broken();
  std::lock_guard lock(queue_mutex_);
  failure_ = exception;
  for (auto* tasks : {&under_way_, &waiting_, &submitted_}) {
    for (Task& task : *tasks) {
      task.work->fail(exception);
    }
  }
  // MPI may still write into the buffers of what is under way, and has no way to take it back: they are never freed.
  static_cast<void>(new std::deque<Task>(std::move(under_way_)));
}

}  // namespace

std::shared_ptr<Transport> make_mpi_transport(Session& session, std::shared_ptr<Watchdog> watchdog) {
  MPI_Comm comm = MPI_COMM_NULL, gather = MPI_COMM_NULL;
  for (MPI_Comm* copy : {&comm, &gather}) {
    DUOFLOW_MPI_CHECK(MPI_Comm_dup(MPI_COMM_WORLD, copy));
    DUOFLOW_MPI_CHECK(MPI_Comm_set_errhandler(*copy, MPI_ERRORS_RETURN));
  }
  int rank = 0, size = 1;
  DUOFLOW_MPI_CHECK(MPI_Comm_rank(comm, &rank));
  DUOFLOW_MPI_CHECK(MPI_Comm_size(comm, &size));
  return wrap_backend(c10::make_intrusive<MpiBackend>(rank, size, comm, gather, session, std::move(watchdog)));
}

}  // namespace duoflow::dist
