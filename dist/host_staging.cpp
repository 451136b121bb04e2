#include "dist/host_staging.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace duoflow::dist {
namespace {

at::Tensor pinned_like(at::Tensor const& tensor) {
  return at::empty(tensor.sizes(), at::TensorOptions(tensor.scalar_type()).device(at::kCPU).pinned_memory(true));
}

}  // namespace

HostStaging::HostStaging(Collective& collective)
    : device_(collective.output.device()),
      stream_(c10::impl::VirtualGuardImpl(device_.type()).getStreamFromGlobalPool(device_)),
      filled_(device_.type()),
      returned_(device_.type()),
      device_output_(collective.output),
      host_output_(pinned_like(collective.output)) {
  at::NoGradGuard no_grad;
  c10::Event before(device_.type());
  before.record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  before.block(stream_);
  c10::StreamGuard guard(stream_);
  if (collective.input.defined()) {
    at::Tensor host_input = pinned_like(collective.input);
    host_input.copy_(collective.input, /*non_blocking=*/true);
    collective.input = host_input;
  } else {
    host_output_.copy_(device_output_, /*non_blocking=*/true);
  }
  collective.output = host_output_;
  filled_.record(stream_);
}

void HostStaging::copy_back() {
  at::NoGradGuard no_grad;
  c10::StreamGuard guard(stream_);
  device_output_.copy_(host_output_, /*non_blocking=*/true);
  returned_.record(stream_);
}

void HostStaging::block_current_stream() {
  returned_.block(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
}

bool HostWork::wait(std::chrono::milliseconds) {
  std::unique_lock lock(mutex_);
  cv_.wait(lock, [this] { return completed_; });
  if (exception_) {
    std::rethrow_exception(exception_);
  }
  if (staging_) {
    staging_->block_current_stream();
  }
  return true;
}

void HostWork::complete() {
  if (staging_) {
    staging_->copy_back();
  }
  finish();
}

}  // namespace duoflow::dist
