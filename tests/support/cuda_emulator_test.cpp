// That the emulator sees what it is there for: kernels that would fail on a GPU fail here.

#include "tests/support/cuda_emulator.h"

#include <gtest/gtest.h>

#include "gpu/kernel.h"

namespace duoflow::gpu {
namespace {

constexpr int kThreads = 64;

void reverse(float const* from, float* to, bool waits) {
  float* const shared = shared_memory<float>();
  shared[thread_index()] = from[thread_index()];
  if (waits) __syncthreads();
  to[thread_index()] = shared[threads() - 1 - thread_index()];
}

struct Reversed {
  std::vector<float> in, out;
  explicit Reversed(bool waits) : in(kThreads), out(kThreads) {
    std::iota(in.begin(), in.end(), 0.0F);
    launch("reverse", reverse, 1, kThreads, kThreads * sizeof(float), nullptr, in.data(), out.data(), waits);
    std::reverse(in.begin(), in.end());
  }
};

TEST(CudaEmulatorTest, AMissingBarrierGivesOtherNumbers) {
  Reversed const with(true), without(false);
  EXPECT_EQ(with.out, with.in);
  EXPECT_NE(without.out, without.in);
}

void sum_lanes(float* out, int lanes) {
  out[block_index() * threads() + thread_index()] = sum_over_lanes(static_cast<float>(thread_index()), lanes);
}

TEST(CudaEmulatorTest, LanesAddUpWithinTheirWarpAndGroup) {
  for (int const lanes : {1, 4, 32}) {
    std::vector<float> out(2 * kThreads);
    launch("sum_lanes", sum_lanes, 2, kThreads, 0, nullptr, out.data(), lanes);
    for (int i = 0; i < 2 * kThreads; ++i) {
      int const first = i % kThreads / lanes * lanes;
      EXPECT_EQ(out[static_cast<std::size_t>(i)], static_cast<float>(lanes * first + lanes * (lanes - 1) / 2))
          << lanes << " lanes, thread " << i;
    }
  }
}

void leave_early(bool in_shuffle) {
  if (thread_index() == 5) return;
  if (in_shuffle)
    static_cast<void>(sum_over_lanes(1));
  else
    __syncthreads();
}

TEST(CudaEmulatorTest, ThreadsThatMissABarrierAreAnError) {
  for (bool const in_shuffle : {true, false})
    EXPECT_THROW(launch("leave_early", leave_early, 1, kThreads, 0, nullptr, in_shuffle), std::logic_error);
}

void write_shared(std::size_t place) { shared_memory<float>()[place] = 1; }

TEST(CudaEmulatorTest, AWritePastSharedMemoryIsAnError) {
  EXPECT_NO_THROW(launch("write_shared", write_shared, 1, 1, 8, nullptr, std::size_t{1}));
  EXPECT_THROW(launch("write_shared", write_shared, 1, 1, 8, nullptr, std::size_t{2}), std::logic_error);
}

TEST(CudaEmulatorTest, RoundsToTheNearestBfloatAndTiesToEven) {
  for (auto const& [value, bits] : {std::pair(1.0F, 0x3f80), std::pair(1.00390625F, 0x3f80), std::pair(1.01171875F, 0x3f82),
                                    std::pair(3.4e38F, 0x7f80), std::pair(-0.0F, 0x8000)})
    EXPECT_EQ(__float2bfloat16_rn(value).bits, bits) << value;
  EXPECT_TRUE(std::isnan(to_float(__float2bfloat16_rn(NAN))));
}

}  // namespace
}  // namespace duoflow::gpu
