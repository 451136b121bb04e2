#include "launch/model_setup.h"

#include <cstdlib>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

namespace duoflow::launch {
namespace {

TEST(ModelSetupTest, OmpNumThreadsIsHeededUnlessTheConfigSetsThreads) {
  setenv("OMP_NUM_THREADS", "3", 1);
  dist::Runtime runtime;
  Config config;
  configure(runtime, config);
  EXPECT_EQ(at::get_num_threads(), 3);
  config.dist.threads = 2;
  configure(runtime, config);
  EXPECT_EQ(at::get_num_threads(), 2);
  setenv("OMP_NUM_THREADS", "1", 1);
  runtime.set_threads(0);
  EXPECT_EQ(at::get_num_threads(), 1);
  unsetenv("OMP_NUM_THREADS");
}

}  // namespace
}  // namespace duoflow::launch
