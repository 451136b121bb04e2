// c10d::Backend over TCP connections of every rank to rank 0. One communication thread a rank takes the collectives in
// issue order, one at a time, and sleeps in the kernel while it waits.

#include "dist/tcp_backend.h"

#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <sstream>
#include <thread>
#include <type_traits>

#include <ATen/ATen.h>

#include "dist/c10d_backend.h"
#include "dist/error.h"
#include "dist/host_collective.h"
#include "dist/host_staging.h"
#include "dist/tcp_socket.h"

namespace duoflow::dist {
namespace {

constexpr std::chrono::microseconds staging_pause{50};
constexpr double last_word_s = 1;  // for rank 0 to tell a rank why the group has ended; that one may be stopped
constexpr double hello_s = 5;      // for a process that has connected to say who it is

// What a rank says first; processes of other jobs do not know the token.
struct Hello {
  std::uint64_t token = 0;
  std::int64_t rank = 0;
};

// A call, as it goes to rank 0 before its tensor. All ranks run the same program on the same kind of processor.
struct Call {
  std::int64_t sequence = 0, output_numel = 0, input_numel = 0;
  std::int32_t kind = 0, op = 0, root = 0, type = 0;
  char label[label_size] = {};
};
static_assert(std::is_trivially_copyable_v<Hello> && std::is_trivially_copyable_v<Call>);

bool moves(Collective const& c) { return c.kind != CollectiveKind::barrier; }

Call call_of(Collective const& c) {
  Call call;
  call.sequence = c.sequence;
  call.output_numel = moves(c) ? c.output.numel() : 0;
  call.input_numel = c.input.defined() ? c.input.numel() : -1;
  call.kind = static_cast<std::int32_t>(c.kind);
  call.op = static_cast<std::int32_t>(c.op);
  call.root = c.root;
  call.type = static_cast<std::int32_t>(moves(c) ? c.output.scalar_type() : at::kByte);
  std::memcpy(call.label, c.label.data(), std::min(c.label.size(), label_size - 1));
  return call;
}

Collective collective_of(Call const& call) {
  Collective c;
  c.kind = static_cast<CollectiveKind>(call.kind);
  auto const type = static_cast<at::ScalarType>(call.type);
  if (moves(c)) c.output = at::empty({call.output_numel}, type);
  if (call.input_numel >= 0) c.input = at::empty({call.input_numel}, type);
  c.op = static_cast<c10d::ReduceOp::RedOpType>(call.op);
  c.root = call.root;
  c.sequence = call.sequence;
  c.label = call.label;
  return c;
}

// What rank 0 needs of this rank; undefined: nothing.
at::Tensor sent_by(Collective const& c, int rank) {
  if (c.kind == CollectiveKind::broadcast && rank != c.root) return {};
  return c.input.defined() ? c.input : c.output;
}

struct Task {
  Collective collective;
  c10::intrusive_ptr<HostWork> work;
};

struct Peer {
  std::string host;
  TcpSocket socket;
};

class TcpBackend : public HostBackend {
 public:
  // `peers`: on rank 0 the ranks from 1, elsewhere rank 0 alone.
  TcpBackend(Session& session, std::vector<Peer> peers, std::shared_ptr<Watchdog> watchdog)
      : HostBackend(session.world().rank, session.world().size),
        session_(session),
        peers_(std::move(peers)),
        watchdog_(std::move(watchdog)),
        thread_([this] { run(); }) {}
  ~TcpBackend() override { shutdown(); }
  std::string const getBackendName() const override { return "tcp"; }
  c10::intrusive_ptr<c10d::Work> submit(Collective collective) override;
  void shutdown() override;

 private:
  void run();
  void carry_out(Collective const& collective);
  void ask(Collective const& mine);
  void serve(Collective const& mine);
  template <typename Talk>
  void with(std::size_t peer, Collective const& collective, Talk const& talk);
  void fail_everything(std::exception_ptr const& exception);
  void end_connections(std::exception_ptr const& exception) const;

  Session& session_;
  std::vector<Peer> peers_;
  std::shared_ptr<Watchdog> watchdog_;  // looks at the deadlines
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;      // under mutex_; the first one is under way
  std::exception_ptr failure_;  // under mutex_; set once, then nothing is sent any more
  bool stopping_ = false;       // under mutex_
  std::int64_t sequence_ = 0;   // under mutex_
  std::thread thread_;          // last: it uses all of the above
};

c10::intrusive_ptr<c10d::Work> TcpBackend::submit(Collective collective) {
  std::unique_ptr<HostStaging> staging;
  if (moves(collective) && !collective.output.is_cpu()) staging = std::make_unique<HostStaging>(collective);
  auto work = c10::make_intrusive<HostWork>(std::move(staging));
  {
    std::lock_guard lock(mutex_);
    collective.sequence = ++sequence_;
    if (failure_) {
      work->fail(failure_);
      return work;
    }
    if (moves(collective) && collective.output.numel() == 0) {
      work->complete();
      return work;
    }
    watchdog_->issued(Group::host, collective.note());
    tasks_.push_back({std::move(collective), work});
  }
  changed_.notify_one();
  return work;
}

void TcpBackend::run() {
  while (true) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = tasks_.front();
    }
    try {
      while (!task.work->ready()) std::this_thread::sleep_for(staging_pause);
      carry_out(task.collective);
    } catch (std::exception const&) {
      fail_everything(std::current_exception());
      return;
    }
    {
      std::lock_guard lock(mutex_);
      tasks_.pop_front();
    }
    watchdog_->completed(Group::host, task.collective.sequence);
    task.work->complete();
  }
}

void TcpBackend::carry_out(Collective const& collective) {
  at::NoGradGuard const no_grad;
  if (getRank() == 0) {
    serve(collective);
  } else {
    ask(collective);
  }
}

template <typename Talk>
void TcpBackend::with(std::size_t peer, Collective const& collective, Talk const& talk) {
  try {
    talk(peers_[peer].socket);
  } catch (PeerError const& error) {
    int const rank = getRank() == 0 ? static_cast<int>(peer) + 1 : 0;
    throw PeerError(
        fmt::format("rank {} on host {} has left {} ({}): it has ended or cannot be reached any more, look at "
                    "its messages and its host, then start again: the run goes on from its newest checkpoint",
                    rank, peers_[peer].host, collective.describe(), error.what()));
  }
}

// The answer is why the group has ended, as a length and a text; or no text, and the result.
void TcpBackend::ask(Collective const& mine) {
  std::string problem;
  with(0, mine, [&](TcpSocket const& rank_0) {
    std::exception_ptr unsent;
    try {
      Call const call = call_of(mine);
      rank_0.send(&call, sizeof(call));
      if (moves(mine)) {
        at::Tensor const sent = sent_by(mine, getRank());
        if (sent.defined()) rank_0.send(sent.const_data_ptr(), sent.nbytes());
      }
    } catch (PeerError const&) {  // rank 0 may have said why before it hung up
      unsent = std::current_exception();
    }
    std::uint32_t length = 0;
    try {
      rank_0.receive(&length, sizeof(length));
      problem.resize(length);
      rank_0.receive(problem.data(), problem.size());
    } catch (PeerError const&) {
      if (unsent) std::rethrow_exception(unsent);
      throw;
    }
    if (unsent && length == 0) std::rethrow_exception(unsent);
    if (moves(mine) && length == 0) rank_0.receive(mine.output.mutable_data_ptr(), mine.output.nbytes());
  });
  if (!problem.empty()) throw PeerError(problem);
}

void TcpBackend::serve(Collective const& mine) {
  std::vector<Collective> calls{mine};
  for (std::size_t peer = 0; peer < peers_.size(); ++peer) {
    with(peer, mine, [&](TcpSocket const& socket) {
      Call call;
      socket.receive(&call, sizeof(call));
      calls.push_back(collective_of(call));
      Collective const& theirs = calls.back();
      at::Tensor const sent = moves(theirs) ? sent_by(theirs, static_cast<int>(peer) + 1) : at::Tensor();
      if (sent.defined()) socket.receive(sent.mutable_data_ptr(), sent.nbytes());
    });
  }
  if (auto const problem = disagreement(calls); !problem.empty()) throw PeerError(problem);
  compute(calls);
  for (std::size_t peer = 0; peer < peers_.size(); ++peer) {
    with(peer, mine, [&](TcpSocket const& socket) {
      std::uint32_t const no_problem = 0;
      socket.send(&no_problem, sizeof(no_problem));
      at::Tensor const& result = calls[peer + 1].output;
      if (result.defined()) socket.send(result.const_data_ptr(), result.nbytes());
    });
  }
}

void TcpBackend::shutdown() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (std::uncaught_exceptions() > 0) {  // the peers may never come: waiting for them would hide the error
      for (Peer const& peer : peers_) peer.socket.shut_down();
    }
  }
  changed_.notify_one();
  thread_.join();
  peers_.clear();
}

void TcpBackend::fail_everything(std::exception_ptr const& exception) {
  session_.mark_broken();
  end_connections(exception);
  std::lock_guard lock(mutex_);
  failure_ = exception;
  for (Task const& task : tasks_) task.work->fail(exception);
  tasks_.clear();
}

// The others learn of it at once, wherever they wait; from rank 0 with the reason.
void TcpBackend::end_connections(std::exception_ptr const& exception) const {
  std::string reason;
  try {
    std::rethrow_exception(exception);
  } catch (std::exception const& error) {
    reason = error.what();
  }
  auto const length = static_cast<std::uint32_t>(reason.size());
  for (Peer const& peer : peers_) {
    try {
      peer.socket.set_timeout(last_word_s);
      if (getRank() == 0) peer.socket.send(&length, sizeof(length));
      if (getRank() == 0) peer.socket.send(reason.data(), reason.size());
    } catch (PeerError const&) {  // the one that has gone, for one
    }
    peer.socket.shut_down();
  }
}

std::vector<Peer> accept_ranks(TcpListener const& listener, std::uint64_t token, std::vector<std::string> const& hosts,
                               double timeout_s) {
  std::vector<Peer> peers;
  for (std::size_t rank = 1; rank < hosts.size(); ++rank) peers.push_back({hosts[rank], TcpSocket(-1)});
  for (std::size_t missing = peers.size(); missing > 0;) {
    TcpSocket socket = listener.accept(timeout_s);
    Hello hello;
    socket.set_timeout(hello_s);
    try {
      socket.receive(&hello, sizeof(hello));
    } catch (PeerError const&) {
      continue;
    }
    bool const is_ours =
        hello.token == token && hello.rank >= 1 && hello.rank <= static_cast<std::int64_t>(peers.size());
    if (!is_ours) continue;
    socket.set_timeout(0);
    TcpSocket& place = peers[static_cast<std::size_t>(hello.rank - 1)].socket;
    if (place.descriptor() < 0) --missing;
    place = std::move(socket);
  }
  return peers;
}

std::vector<Peer> connect_ranks(Session& session, double timeout_s) {
  World const& world = session.world();
  auto const hosts = session.gather_strings(host_name());
  if (world.rank == 0) {
    TcpListener const listener(interface_of(session.address()));
    std::random_device random;
    std::uint64_t const token = (std::uint64_t{random()} << 32) | random();
    session.broadcast_string(fmt::format("{} {} {}", session.address(), listener.port(), token));
    return accept_ranks(listener, token, hosts, timeout_s);
  }
  std::istringstream line(session.broadcast_string(""));
  std::string address;
  int port = 0;
  Hello hello;
  line >> address >> port >> hello.token;
  hello.rank = world.rank;
  try {
    TcpSocket socket = connect_to(address, port, timeout_s);
    socket.send(&hello, sizeof(hello));
    std::vector<Peer> peers;
    peers.push_back({hosts[0], std::move(socket)});
    return peers;
  } catch (PeerError const& error) {
    throw PeerError(
        fmt::format("rank 0 on host {} cannot be reached at {} port {} ({}), look at the network between the "
                    "hosts and its firewalls",
                    hosts[0], address, port, error.what()));
  }
}

}  // namespace

std::shared_ptr<Transport> make_tcp_transport(Session& session, double timeout_s, std::shared_ptr<Watchdog> watchdog) {
  return wrap_backend(c10::make_intrusive<TcpBackend>(session, connect_ranks(session, timeout_s), std::move(watchdog)));
}

}  // namespace duoflow::dist
