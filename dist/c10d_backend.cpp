#include "dist/c10d_backend.h"

#include <stdexcept>

#include <fmt/format.h>

#include "dist/device_graph.h"
#include "dist/error.h"

namespace duoflow::dist {
namespace {

char const* kind_name(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::all_reduce:
      return "all_reduce";
    case CollectiveKind::reduce_scatter:
      return "reduce_scatter";
    case CollectiveKind::all_gather:
      return "all_gather";
    case CollectiveKind::all_to_all:
      return "all_to_all";
    case CollectiveKind::broadcast:
      return "broadcast";
    case CollectiveKind::barrier:
      return "barrier";
  }
  return "collective";
}

c10d::ReduceOp::RedOpType to_c10d(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return c10d::ReduceOp::SUM;
    case ReduceOp::max:
      return c10d::ReduceOp::MAX;
    case ReduceOp::min:
      return c10d::ReduceOp::MIN;
  }
  throw std::logic_error("unknown reduction");
}

char const* operation_name(c10d::OpType type) {
  switch (type) {
    case c10d::OpType::ALLREDUCE:
      return "all_reduce";
    case c10d::OpType::_REDUCE_SCATTER_BASE:
      return "reduce_scatter";
    case c10d::OpType::_ALLGATHER_BASE:
      return "all_gather";
    case c10d::OpType::ALLTOALL_BASE:
      return "all_to_all";
    case c10d::OpType::BROADCAST:
      return "broadcast";
    case c10d::OpType::BARRIER:
      return "barrier";
    default:
      return "collective";
  }
}

// What a backend throws means that the group is broken, except for wrong use (std::logic_error).
template <typename Call>
auto as_peer_error(std::string const& backend, Call const& call) {
  try {
    return call();
  } catch (PeerError const&) {
    throw;
  } catch (std::logic_error const&) {
    throw;
  } catch (c10::Error const& error) {  // without LibTorch's backtrace
    throw PeerError(fmt::format("communication over {} failed ({}), look at the first message of the other ranks",
                                backend, error.what_without_backtrace()));
  } catch (std::exception const& error) {
    throw PeerError(fmt::format("communication over {} failed ({}), look at the first message of the other ranks",
                                backend, error.what()));
  }
}

class C10dPending : public Pending::Work {
 public:
  C10dPending(std::string backend, c10::intrusive_ptr<c10d::Work> work)
      : backend_(std::move(backend)), work_(std::move(work)) {}
  void wait() override {
    as_peer_error(backend_, [this] { return work_->wait(); });
  }

 private:
  std::string backend_;
  c10::intrusive_ptr<c10d::Work> work_;
};

class C10dTransport : public Transport {
 public:
  C10dTransport(c10::intrusive_ptr<c10d::Backend> backend, std::shared_ptr<Watchdog> watchdog,
                std::shared_ptr<KeyStore> store)
      : store_(std::move(store)), backend_(std::move(backend)), watchdog_(std::move(watchdog)) {}
  ~C10dTransport() override {
    try {
      close();
    } catch (std::exception const& error) {
      fmt::print(stderr, "duoflow: closing the group over {} failed: {}\n", name(), error.what());
    }
  }
  int rank() const override { return backend_->getRank(); }
  int size() const override { return backend_->getSize(); }
  std::string name() const override { return backend_->getBackendName(); }
  bool moves_host_memory() const override { return name() != "nccl"; }

  Pending all_reduce(at::Tensor tensor, ReduceOp op) override {
    c10d::AllreduceOptions options;
    options.reduceOp = to_c10d(op);
    std::vector<at::Tensor> tensors{std::move(tensor)};
    return start([&] { return backend_->allreduce(tensors, options); });
  }
  Pending reduce_scatter(at::Tensor output, at::Tensor input) override {
    return start([&] { return backend_->_reduce_scatter_base(output, input, c10d::ReduceScatterOptions()); });
  }
  Pending all_gather(at::Tensor output, at::Tensor input) override {
    return start([&] { return backend_->_allgather_base(output, input, c10d::AllgatherOptions()); });
  }
  Pending all_to_all(at::Tensor output, at::Tensor input) override {
    std::vector<std::int64_t> equal_pieces;
    return start(
        [&] { return backend_->alltoall_base(output, input, equal_pieces, equal_pieces, c10d::AllToAllOptions()); });
  }
  Pending broadcast(at::Tensor tensor, int root) override {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    std::vector<at::Tensor> tensors{std::move(tensor)};
    return start([&] { return backend_->broadcast(tensors, options); });
  }
  void barrier() override {
    start([&] { return backend_->barrier(c10d::BarrierOptions()); }).wait();
  }
  void close() override {
    if (!closed_) {
      closed_ = true;
      if (watchdog_) watchdog_->forget(Group::nccl);  // the watchdog holds the last collectives
      backend_->shutdown();
    }
  }

 private:
  template <typename Call>
  Pending start(Call const& call) {
    if (closed_) {
      throw std::logic_error("collective on a closed communicator (the Runtime that made it has ended)");
    }
    auto work = as_peer_error(name(), call);
    if (watchdog_ && !is_capturing()) {  // a recorded one does not run now: to ask for its end would be an error
      auto const note =
          make_note(operation_name(work->retrieveOpType()), CollectiveLabel::current(), "", ++sequence_, 0);
      watchdog_->issued(Group::nccl, note, [work] { return work->isCompleted(); });
    }
    return Pending(std::make_shared<C10dPending>(name(), std::move(work)));
  }

  std::shared_ptr<KeyStore> store_;  // first: the backend uses it to the end
  c10::intrusive_ptr<c10d::Backend> backend_;
  std::shared_ptr<Watchdog> watchdog_;
  std::int64_t sequence_ = 0;
  bool closed_ = false;
};

}  // namespace

std::shared_ptr<Transport> wrap_backend(c10::intrusive_ptr<c10d::Backend> backend, std::shared_ptr<Watchdog> watchdog,
                                        std::shared_ptr<KeyStore> store) {
  return std::make_shared<C10dTransport>(std::move(backend), std::move(watchdog), std::move(store));
}

CollectiveNote Collective::note() const {
  bool const moves = kind != CollectiveKind::barrier;
  return make_note(kind_name(kind), label, moves ? c10::toString(output.scalar_type()) : "", sequence,
                   moves ? output.numel() : 0);
}

std::string Collective::elapsed() const {
  std::chrono::duration<double> const time = std::chrono::steady_clock::now() - issued;
  return fmt::format("{:.1f} s", time.count());
}

c10::intrusive_ptr<c10d::Work> HostBackend::broadcast(std::vector<at::Tensor>& tensors,
                                                      c10d::BroadcastOptions const& options) {
  Collective collective{CollectiveKind::broadcast, tensors.at(0), {}};
  collective.root = static_cast<int>(options.rootRank);
  return submit(std::move(collective));
}

c10::intrusive_ptr<c10d::Work> HostBackend::allreduce(std::vector<at::Tensor>& tensors,
                                                      c10d::AllreduceOptions const& options) {
  Collective collective{CollectiveKind::all_reduce, tensors.at(0), {}};
  collective.op = options.reduceOp;
  return submit(std::move(collective));
}

c10::intrusive_ptr<c10d::Work> HostBackend::_allgather_base(at::Tensor& output, at::Tensor& input,
                                                            c10d::AllgatherOptions const&) {
  return submit(Collective{CollectiveKind::all_gather, output, input});
}

c10::intrusive_ptr<c10d::Work> HostBackend::_reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                                                 c10d::ReduceScatterOptions const&) {
  return submit(Collective{CollectiveKind::reduce_scatter, output, input});
}

c10::intrusive_ptr<c10d::Work> HostBackend::alltoall_base(at::Tensor& output, at::Tensor& input,
                                                          std::vector<std::int64_t>&, std::vector<std::int64_t>&,
                                                          c10d::AllToAllOptions const&) {
  return submit(Collective{CollectiveKind::all_to_all, output, input});
}

c10::intrusive_ptr<c10d::Work> HostBackend::barrier(c10d::BarrierOptions const&) { return submit(Collective{}); }

}  // namespace duoflow::dist
