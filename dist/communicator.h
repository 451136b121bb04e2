#pragma once
// Communicator: the group of ranks a tensor is reduced over. A value; copying it copies a handle.
//
// A null communicator is a world of one: every call below works on it with the same result a group of size one gives.
// All ranks of the group must make the same calls in the same order. Each call returns at once with a Pending;
// the tensors given must stay alive and unchanged by others until its wait() returns.

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace at {
class Tensor;
}

namespace duoflow::dist {

enum class ReduceOp { sum, max, min };

// A collective under way. wait() makes the *current stream* wait on CUDA (no host synchronisation) and blocks the
// calling thread on CPU. Throws PeerError when a peer failed or the deadline passed. Waiting twice is allowed.
class Pending {
 public:
  class Work {
   public:
    virtual ~Work() = default;
    virtual void wait() = 0;
  };
  Pending() = default;  // already done
  explicit Pending(std::shared_ptr<Work> work) : work_(std::move(work)) {}
  void wait();

 private:
  std::shared_ptr<Work> work_;
};

// What a backend implements; one .cpp each (mpi_backend, nccl_backend, thread_backend), all over c10d::Backend.
// Tests decorate it (a tracing transport records the order of calls).
class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string name() const = 0;
  virtual bool moves_host_memory() const { return true; }  // false: tensors on the host cannot be given
  virtual Pending all_reduce(at::Tensor tensor, ReduceOp op) = 0;
  virtual Pending reduce_scatter(at::Tensor output, at::Tensor input) = 0;  // sum; input = size x output
  virtual Pending all_gather(at::Tensor output, at::Tensor input) = 0;      // output = size x input
  virtual Pending all_to_all(at::Tensor output, at::Tensor input) = 0;      // piece r of the input goes to rank r
  virtual Pending broadcast(at::Tensor tensor, int root) = 0;
  virtual void barrier() = 0;  // blocks
  // Ends the transport: what is under way is finished or failed, later calls throw. Calling it twice is allowed.
  virtual void close() {}
};

class Communicator {
 public:
  Communicator() = default;  // null: a world of one
  explicit Communicator(std::shared_ptr<Transport> transport) : transport_(std::move(transport)) {}
  int rank() const { return transport_ ? transport_->rank() : 0; }
  int size() const { return transport_ ? transport_->size() : 1; }
  Transport* transport() const { return transport_.get(); }

 private:
  std::shared_ptr<Transport> transport_;
};

// Tensors are defined, dense, contiguous, of type fp32, fp64, bf16, i64 or u8, and in size as Transport says; anything
// else is std::invalid_argument before anything is sent.
Pending all_reduce(Communicator const& communicator, at::Tensor tensor, ReduceOp op = ReduceOp::sum);
Pending reduce_scatter(Communicator const& communicator, at::Tensor output,
                       at::Tensor input);  // fp32: the output may be the rank's own piece of the input
Pending all_gather(Communicator const& communicator, at::Tensor output, at::Tensor input);
// all_gather's input may be its own piece of the output (in place); reduce_scatter's and all_to_all's tensors may not
// overlap.
Pending all_to_all(Communicator const& communicator, at::Tensor output, at::Tensor input);  // both size() equal pieces
Pending broadcast(Communicator const& communicator, at::Tensor tensor, int root = 0);
void barrier(Communicator const& communicator);

// Names the collectives that this thread issues while the object lives, for the reports of the watchdog: "bucket 3".
// Short: what does not fit into 23 bytes is cut off. All ranks give the same.
class CollectiveLabel {
 public:
  explicit CollectiveLabel(std::string_view text);
  CollectiveLabel(std::string_view text, std::size_t number);
  ~CollectiveLabel();
  CollectiveLabel(CollectiveLabel const&) = delete;
  CollectiveLabel& operator=(CollectiveLabel const&) = delete;
  static std::string_view current();  // of this thread; "" if none

 private:
  std::array<char, 24> outer_;
};

// Host-side convenience for start-up and shut-down (never the step path). Every rank gets every rank's string.
std::vector<std::string> all_gather_strings(Communicator const& communicator, std::string const& mine);

}  // namespace duoflow::dist
