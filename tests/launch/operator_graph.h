#pragma once
// A DeviceGraph on the CPU, for tests: what a CUDA graph does with kernels, done with ATen's operators. capture() notes
// every operator below autograd with the very tensors and numbers it was given, and takes back what they wrote into
// memory that was there before, as if nothing had been executed. replay() calls them again, with those tensors and
// numbers and without any code of the host around them. A number that the host put into an operator, or a tensor that
// it exchanged for another one, stays what it was in the recorded step, which is how a step that must not be captured
// shows. An operator that hands a number to the host is an error in capture(), as it is on CUDA.
//
// It sees operators alone: memory written by plain loops is not written again. plain_kernels.cpp has the fused
// operators of the CPU out of ATen's for that.

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/dispatch/Dispatcher.h>

#include "dist/device_graph.h"

namespace duoflow::launch {

class OperatorGraph : public dist::DeviceGraph {
 public:
  // fails_at: number of the operator, from 0, at which capture() throws std::runtime_error; -1: at none.
  explicit OperatorGraph(std::int64_t fails_at = -1) : fails_at_(fails_at) {}
  void capture(std::function<void()> const& work) override;
  void replay() override;
  std::int64_t size() const { return static_cast<std::int64_t>(calls_.size()); }

  // Of the kernel that is called for every operator.
  static void note(c10::OperatorHandle const& op, c10::DispatchKeySet keys, torch::jit::Stack* stack);

 private:
  struct Call {
    c10::OperatorHandle op;
    std::vector<c10::IValue> arguments;
    std::vector<c10::IValue> results;  // none for those whose memory is an argument's
  };
  struct Before {
    c10::Storage storage;
    std::vector<char> bytes;
  };
  void keep_before(c10::OperatorHandle const& op, std::vector<c10::IValue> const& arguments);
  void take_back();

  std::int64_t fails_at_, noted_ = 0;
  std::vector<Call> calls_;
  std::vector<Before> before_;  // of every storage that was written
};

}  // namespace duoflow::launch
