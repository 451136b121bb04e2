#pragma once
// Private to dist/*_backend.cpp (the only files that see c10d, with host_*.cpp and key_store.cpp): a c10d::Backend as a
// Transport, and what our own backends share. c10d's class names change between releases of LibTorch; nothing else may
// depend on them.

#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "dist/communicator.h"
#include "dist/watchdog.h"

namespace duoflow::dist {

class KeyStore;

// Arguments are those of the free functions, already checked there. Errors of the backend come out as PeerError.
// `watchdog`: is told of the collectives (of Group::nccl), for a backend that does not do so itself. `store`: lives as
// long as the transport.
std::shared_ptr<Transport> wrap_backend(c10::intrusive_ptr<c10d::Backend> backend,
                                        std::shared_ptr<Watchdog> watchdog = nullptr,
                                        std::shared_ptr<KeyStore> store = nullptr);

enum class CollectiveKind { all_reduce, reduce_scatter, all_gather, all_to_all, broadcast, barrier };

// One collective as our own backends see it. It owns handles of the tensors, so they live as long as it does.
struct Collective {
  CollectiveKind kind = CollectiveKind::barrier;
  at::Tensor output, input;  // all_reduce and broadcast: only output; barrier: none
  c10d::ReduceOp::RedOpType op = c10d::ReduceOp::SUM;
  int root = 0;
  std::int64_t sequence = 0;  // number of the collective in this group, from 1
  std::string label{CollectiveLabel::current()};
  std::chrono::steady_clock::time_point issued = std::chrono::steady_clock::now();

  CollectiveNote note() const;
  std::string describe() const { return note().describe(); }  // "all_reduce #12 (bucket 3) of 1024 Float"
  std::string elapsed() const;                                // "1.5 s"
};

// A c10d::Backend whose collectives all arrive at one function.
class HostBackend : public c10d::Backend {
 public:
  using c10d::Backend::Backend;
  virtual c10::intrusive_ptr<c10d::Work> submit(Collective collective) = 0;

  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           c10d::BroadcastOptions const& options) override;
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           c10d::AllreduceOptions const& options) override;
  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor& output, at::Tensor& input,
                                                 c10d::AllgatherOptions const& options) override;
  c10::intrusive_ptr<c10d::Work> _reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                                      c10d::ReduceScatterOptions const& options) override;
  c10::intrusive_ptr<c10d::Work> alltoall_base(at::Tensor& output, at::Tensor& input,
                                               std::vector<std::int64_t>& output_sizes,
                                               std::vector<std::int64_t>& input_sizes,
                                               c10d::AllToAllOptions const& options) override;
  c10::intrusive_ptr<c10d::Work> barrier(c10d::BarrierOptions const& options) override;
};

}  // namespace duoflow::dist
