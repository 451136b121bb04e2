// Collectives on tensors of the device through host memory: several ranks, as threads, share one device.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/dist/collective_cases.h"
#include "tests/dist/tcp_ranks.h"
#include "tests/gpu/cuda_world.h"

namespace duoflow::dist {
namespace {

at::Tensor on_cuda(at::Tensor const& tensor) { return tensor.to(at::kCUDA); }

class CudaStaging : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(CudaStaging, EveryCollectiveFollowsItsClosedForm) {
  auto const type = GetParam();
  for (int const ranks : {2, 3}) {
    run_tcp_ranks(ranks, [&](Communicator const& group) {
      int const rank = group.rank();
      for (std::int64_t const numel : {1, 7, 1000}) {
        auto const sum = on_cuda(filled(type, rank, 0, numel)), sent = on_cuda(filled(type, rank, 0, numel));
        auto const piece = on_cuda(at::zeros({numel}, type)), all = on_cuda(at::zeros({numel * ranks}, type));
        auto const pieces = at::zeros_like(all);
        all_reduce(group, sum).wait();
        broadcast(group, sent, ranks - 1).wait();
        reduce_scatter(group, piece, on_cuda(filled(type, rank, 0, numel * ranks))).wait();
        all_gather(group, all, on_cuda(filled(type, rank, 0, numel))).wait();
        all_to_all(group, pieces, on_cuda(filled(type, rank, 0, numel * ranks))).wait();
        EXPECT_TRUE(at::equal(sum.cpu(), summed(type, ranks, 0, numel)));
        EXPECT_TRUE(at::equal(sent.cpu(), filled(type, ranks - 1, 0, numel)));
        EXPECT_TRUE(at::equal(piece.cpu(), summed(type, ranks, rank * numel, numel)));
        for (int other = 0; other < ranks; ++other) {
          EXPECT_TRUE(at::equal(all.narrow(0, other * numel, numel).cpu(), filled(type, other, 0, numel)));
          EXPECT_TRUE(
              at::equal(pieces.narrow(0, other * numel, numel).cpu(), filled(type, other, rank * numel, numel)));
        }
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Types, CudaStaging,
                         ::testing::Values(at::kFloat, at::kDouble, at::kBFloat16, at::kLong, at::kByte));

TEST(CudaStagingOrder, IsAfterWhatMadeTheTensorAndBeforeWhatReadsIt) {
  run_tcp_ranks(2, [](Communicator const& group) {
    auto const input = at::zeros({1 << 16}, at::TensorOptions(at::kFloat).device(at::kCUDA));
    auto output = at::zeros_like(input);
    keep_busy(0.2);
    input.fill_(group.rank() + 1);
    auto pending = all_to_all(group, output, input);
    pending.wait();
    auto const next = output + 10;
    EXPECT_EQ(next.min().item<float>(), 11);
    EXPECT_EQ(next.max().item<float>(), 12);
  });
}

}  // namespace
}  // namespace duoflow::dist
