#pragma once
// Closed-form checks of every collective, run by threads (communicator_test) and by processes (world_test).
// Element i of rank r holds 1000 r + i + 1, small enough to be exact in every type but bf16 and u8 (see value()).

#include <chrono>
#include <thread>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/communicator.h"

namespace duoflow::dist {

inline std::int64_t value(at::ScalarType type, int rank, std::int64_t i) {
  bool const narrow = type == at::kBFloat16 || type == at::kByte;
  return narrow ? rank + 1 + i % 5 : 1000 * rank + i + 1;
}

inline at::Tensor filled(at::ScalarType type, int rank, std::int64_t begin, std::int64_t numel) {
  at::Tensor tensor = at::empty({numel}, at::kLong);
  for (std::int64_t i = 0; i < numel; ++i) {
    tensor.data_ptr<std::int64_t>()[i] = value(type, rank, begin + i);
  }
  return tensor.to(type);
}

inline at::Tensor summed(at::ScalarType type, int ranks, std::int64_t begin, std::int64_t numel) {
  at::Tensor sum = at::zeros({numel}, at::kLong);
  for (int rank = 0; rank < ranks; ++rank) {
    sum += filled(type, rank, begin, numel).to(at::kLong);
  }
  return sum.to(type);
}

inline void expect_collectives_follow_closed_forms(Communicator const& group, at::ScalarType type, std::int64_t numel) {
  int const rank = group.rank(), size = group.size();
  SCOPED_TRACE(testing::Message() << "rank " << rank << " of " << size << ", " << c10::toString(type) << " x "
                                  << numel);

  at::Tensor sum = filled(type, rank, 0, numel);
  at::Tensor largest = sum.clone(), smallest = sum.clone();
  Pending first = all_reduce(group, sum);
  Pending second = all_reduce(group, largest, ReduceOp::max);  // several are under way at once
  Pending third = all_reduce(group, smallest, ReduceOp::min);
  third.wait();
  second.wait();
  first.wait();
  first.wait();
  EXPECT_TRUE(at::equal(sum, summed(type, size, 0, numel)));
  EXPECT_TRUE(at::equal(largest, filled(type, size - 1, 0, numel)));
  EXPECT_TRUE(at::equal(smallest, filled(type, 0, 0, numel)));

  at::Tensor piece = at::zeros({numel}, type);
  reduce_scatter(group, piece, filled(type, rank, 0, numel * size)).wait();
  EXPECT_TRUE(at::equal(piece, summed(type, size, rank * numel, numel)));

  if (type == at::kFloat) {
    at::Tensor const whole = filled(type, rank, 0, numel * size), own = whole.narrow(0, rank * numel, numel);
    reduce_scatter(group, own, whole).wait();  // in place
    EXPECT_TRUE(at::equal(own, summed(type, size, rank * numel, numel)));
  }

  at::Tensor all = at::zeros({numel * size}, type);
  all_gather(group, all, filled(type, rank, 0, numel)).wait();
  for (int other = 0; other < size; ++other) {
    EXPECT_TRUE(at::equal(all.narrow(0, other * numel, numel), filled(type, other, 0, numel)));
  }

  all.zero_();
  all.narrow(0, rank * numel, numel).copy_(filled(type, rank, 0, numel));
  all_gather(group, all, all.narrow(0, rank * numel, numel)).wait();  // in place
  for (int other = 0; other < size; ++other) {
    EXPECT_TRUE(at::equal(all.narrow(0, other * numel, numel), filled(type, other, 0, numel)));
  }

  at::Tensor pieces = at::zeros({numel * size}, type);
  all_to_all(group, pieces, filled(type, rank, 0, numel * size)).wait();
  for (int other = 0; other < size; ++other) {
    EXPECT_TRUE(at::equal(pieces.narrow(0, other * numel, numel), filled(type, other, rank * numel, numel)));
  }

  at::Tensor sent = filled(type, rank, 0, numel);
  broadcast(group, sent, size - 1).wait();
  EXPECT_TRUE(at::equal(sent, filled(type, size - 1, 0, numel)));
  barrier(group);
}

inline void expect_all_collectives(Communicator const& group) {
  expect_collectives_follow_closed_forms(group, at::kFloat, 16384);  // from here on MPI sums by exchange
  expect_collectives_follow_closed_forms(group, at::kFloat, 40003);  // slices of different sizes
  for (at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kLong, at::kByte}) {
    for (std::int64_t numel : {0, 1, 7, 1000}) {
      expect_collectives_follow_closed_forms(group, type, numel);
    }
  }
}

// Many large sums at once, among other collectives, and some ranks late: their second halves must keep their order.
inline void expect_large_sums_keep_their_order(Communicator const& group) {
  for (int round = 0; round < 20; ++round) {
    std::vector<at::Tensor> sums;
    std::vector<Pending> pending;
    at::Tensor small = at::ones({3}, at::kDouble);
    for (int i = 0; i < 6; ++i) {
      sums.push_back(filled(at::kFloat, group.rank(), i, 20000 + 7000 * (i % 3)));
      pending.push_back(all_reduce(group, sums.back()));
      if (i == 2) pending.push_back(all_reduce(group, small));
      if ((group.rank() + i + round) % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
    for (auto& one : pending) one.wait();
    for (int i = 0; i < 6; ++i) {
      EXPECT_TRUE(at::equal(sums[static_cast<std::size_t>(i)], summed(at::kFloat, group.size(), i, 20000 + 7000 * (i % 3))));
    }
    EXPECT_TRUE(at::equal(small, at::full({3}, static_cast<double>(group.size()), at::kDouble)));
  }
}

inline void expect_strings_are_gathered(Communicator const& group) {
  std::string const mine(static_cast<std::size_t>(group.rank()), static_cast<char>('a' + group.rank()));
  auto const all = all_gather_strings(group, mine);  // rank 0's is empty
  ASSERT_EQ(all.size(), static_cast<std::size_t>(group.size()));
  for (int rank = 0; rank < group.size(); ++rank) {
    EXPECT_EQ(all[static_cast<std::size_t>(rank)],
              std::string(static_cast<std::size_t>(rank), static_cast<char>('a' + rank)));
  }
}

}  // namespace duoflow::dist
