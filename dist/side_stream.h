#pragma once
// SideStream: work beside the current stream of a CUDA device; on the CPU everything happens in the calling thread.
// Written with c10's device-generic streams, so it needs no CUDA headers.

#include <optional>

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace duoflow::dist {

class SideStream {
 public:
  explicit SideStream(c10::Device device) : device_(device) {
    if (!device.is_cpu()) stream_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, true);
  }
  // While the guard lives the side stream is the current one, in order behind what the current stream has got so far.
  std::optional<c10::StreamGuard> scope() {
    if (!stream_) return std::nullopt;
    c10::Event before(device_.type());
    before.record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
    before.block(*stream_);
    return std::optional<c10::StreamGuard>(std::in_place, *stream_);
  }
  // The current stream waits for the side stream; the host does not.
  void join() {
    if (!stream_) return;
    c10::Event after(device_.type());
    after.record(*stream_);
    after.block(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  }

 private:
  c10::Device device_;
  std::optional<c10::Stream> stream_;
};

}  // namespace duoflow::dist
