#pragma once
// SideStream: work beside the current stream of a CUDA device; on the CPU everything happens in the calling thread.
// Written with c10's device-generic streams, so it needs no CUDA headers.

#include <optional>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace duoflow::dist {

enum class StreamPriority { high, ordinary };

class SideStream {
 public:
  explicit SideStream(c10::Device device, StreamPriority priority = StreamPriority::high) : device_(device) {
    if (device.is_cpu()) return;
    bool const is_high = priority == StreamPriority::high;
    stream_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, is_high);
  }
  // While the guard lives the side stream is the current one, in order behind what the current stream has got so far.
  std::optional<c10::StreamGuard> scope() {
    if (stream_) wait(*stream_, current());
    return unordered_scope();
  }
  // The same, but in no order with the current stream: for work that takes nothing from it, as copies of new data do.
  std::optional<c10::StreamGuard> unordered_scope() {
    if (!stream_) return std::nullopt;
    return std::optional<c10::StreamGuard>(std::in_place, *stream_);
  }
  // The current stream waits for the side stream; the host does not.
  void join() {
    if (stream_) wait(current(), *stream_);
  }
  // After join(), of a tensor made within a scope that the current stream goes on to use: its memory is not given to the
  // side stream's later work before the current stream has passed what it has got when the tensor is freed.
  void keep_for_current(at::Tensor const& made) {
    if (stream_ && made.defined()) made.record_stream(current());
  }

 private:
  c10::Stream current() const { return c10::impl::VirtualGuardImpl(device_.type()).getStream(device_); }
  void wait(c10::Stream const& waiting, c10::Stream const& other) const {
    c10::Event until(device_.type());
    until.record(other);
    until.block(waiting);
  }

  c10::Device device_;
  std::optional<c10::Stream> stream_;
};

}  // namespace duoflow::dist
