// main of test programs that run as several ranks. Rank 0 reports as usual, the others only failures; a failure on any
// rank, or no test at all, fails every rank.

#include <cstdio>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/dist/world.h"

namespace duoflow::dist {
namespace {

Runtime* the_world = nullptr;

class FailuresOnly : public testing::EmptyTestEventListener {
  void OnTestPartResult(testing::TestPartResult const& result) override {
    if (result.failed()) {
      std::fprintf(stderr, "rank %d: %s:%d: %s\n", world().rank(), result.file_name(), result.line_number(),
                   result.message());
    }
  }
};

}  // namespace

Runtime& world() { return *the_world; }

}  // namespace duoflow::dist

int main(int argc, char** argv) {
  using namespace duoflow::dist;
  // A rank that leaves a test early keeps the others waiting: the deadline ends that.
  Runtime runtime({1, 20});
  the_world = &runtime;
  testing::InitGoogleTest(&argc, argv);
  if (runtime.rank() != 0) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailuresOnly);
  }
  Communicator const group = runtime.communicator(Device::cpu);
  auto const body = [&] {
    int result = RUN_ALL_TESTS();
    if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) {
      std::fprintf(stderr, "rank %d: no test was run\n", runtime.rank());
      result = 1;
    }
    at::Tensor worst = at::full({1}, result, at::kLong);
    all_reduce(group, worst, ReduceOp::max).wait();
    return static_cast<int>(worst.item<std::int64_t>());
  };
  return run_guarded(runtime, body, [](std::exception const&) { return 1; });
}
