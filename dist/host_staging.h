#pragma once
// Private to the backends that move host memory: a collective on CUDA tensors through (pinned) host memory, without
// blocking the host until someone waits. Written with c10's device-generic streams, so it needs no CUDA headers.
//
// caller's stream --event--> side stream: device to host --ready()--> backend --copy_back()--> side stream: host to
// device
// --event--> the stream that is current where the result is waited for.

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include "dist/c10d_backend.h"

namespace duoflow::dist {

class HostStaging {
 public:
  // Replaces the tensors of the collective by host copies and starts filling them, in order with the current stream.
  explicit HostStaging(Collective& collective);
  bool ready() const { return filled_.query(); }  // the host copies hold the values
  void copy_back();                               // starts host to device; any thread
  void block_current_stream();                    // after copy_back

 private:
  c10::Device device_;
  c10::Stream stream_;
  c10::Event filled_, returned_;
  at::Tensor device_output_, host_output_;
};

// A collective that a communication thread carries out: waited for by the caller, completed by that thread.
class HostWork : public c10d::Work {
 public:
  explicit HostWork(std::unique_ptr<HostStaging> staging) : staging_(std::move(staging)) {}
  bool wait(std::chrono::milliseconds) override;
  bool ready() const { return !staging_ || staging_->ready(); }  // the collective's tensors hold their values
  void complete();
  void fail(std::exception_ptr exception) { finish(std::move(exception)); }

 private:
  std::unique_ptr<HostStaging> staging_;
};

}  // namespace duoflow::dist
