// What the watchdog knows of collectives over NCCL, which end on the device and not in a call.

#include <atomic>
#include <memory>
#include <mutex>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/nccl_backend.h"
#include "dist/watchdog.h"
#include "tests/gpu/cuda_world.h"

namespace duoflow::dist {
namespace {

using std::chrono::milliseconds;
constexpr auto kNccl = static_cast<std::size_t>(Group::nccl);

class CudaWatchdog : public ::testing::Test {
 protected:
  void start(double deadline_s) {
    WatchdogOptions options;
    options.hosts = {"here"};
    options.slots = {&slot_};
    options.collective_s = deadline_s;
    options.end_job = [this](std::string const& report) {
      std::lock_guard lock(mutex_);
      report_ = report;
    };
    options.hush = options.leave = [] {};
    watchdog_ = std::make_shared<Watchdog>(std::move(options));
    transport_ = make_nccl_transport(nullptr, kMaxSeconds, watchdog_);
  }
  void TearDown() override {
    if (transport_) transport_->close();
    if (watchdog_) watchdog_->stop();
  }
  bool is_completed(std::int64_t sequence) const { return slot_.read().completed[kNccl] >= sequence; }
  std::string report() {
    std::lock_guard lock(mutex_);
    return report_;
  }
  template <typename Condition>
  static bool comes_true(Condition const& condition) {
    for (int i = 0; i < 500 && !condition(); ++i) std::this_thread::sleep_for(milliseconds(10));
    return condition();
  }

  RecordSlot slot_;
  std::mutex mutex_;
  std::string report_;
  std::shared_ptr<Watchdog> watchdog_;
  std::shared_ptr<Transport> transport_;
};

TEST_F(CudaWatchdog, ACollectiveIsNotedWhenIssuedAndDoneWhenTheDeviceHasDoneIt) {
  start(kMaxSeconds);
  Communicator const group(transport_);
  auto const tensor = at::ones({1000}, at::TensorOptions(at::kFloat).device(at::kCUDA));
  Pending pending;
  {
    NoHostSynchronisation const guard;
    CollectiveLabel const label("bucket", 3);
    keep_busy(2.0);  // longer than the first launch of a group may take
    pending = all_reduce(group, tensor);
    pending.wait();  // of the stream, not of the host
  }
  EXPECT_EQ(slot_.read().last[kNccl].describe(), "all_reduce #1 (bucket 3)");
  EXPECT_FALSE(is_completed(1));
  EXPECT_TRUE(comes_true([&] { return is_completed(1); }));
  auto const pieces = at::zeros_like(tensor);
  all_to_all(group, pieces, tensor).wait();
  EXPECT_EQ(slot_.read().last[kNccl].name(), "all_to_all #2");
  EXPECT_TRUE(comes_true([&] { return is_completed(2); }));
  EXPECT_EQ(report(), "");
}

TEST_F(CudaWatchdog, ADeviceThatDoesNotGetToTheCollectiveIsReported) {
  start(0.3);
  auto const tensor = at::ones({1000}, at::TensorOptions(at::kFloat).device(at::kCUDA));
  CollectiveLabel const label("statistics");
  keep_busy(1.5);
  auto pending = all_reduce(Communicator(transport_), tensor);
  EXPECT_TRUE(comes_true([&] { return !report().empty(); }));
  EXPECT_NE(report().find("all_reduce #1 (statistics) is not complete on rank 0 after 0."), std::string::npos)
      << report();
  pending.wait();
  EXPECT_EQ(tensor.sum().item<float>(), 1000);
}

}  // namespace
}  // namespace duoflow::dist
