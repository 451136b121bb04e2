#include "dist/communicator.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/error.h"
#include "dist/thread_backend.h"
#include "tests/dist/collective_cases.h"

namespace duoflow::dist {
namespace {

constexpr int rank_counts[] = {1, 2, 3, 4, 8};

// The message of the exception that call() throws, "" if none.
template <typename Error, typename Call>
std::string message_of(Call const& call) {
  try {
    call();
  } catch (Error const& error) {
    return error.what();
  }
  return "";
}

TEST(CommunicatorTest, EveryCollectiveFollowsItsClosedForm) {
  for (int ranks : rank_counts) {
    run_ranks(ranks, expect_all_collectives);
  }
}

TEST(CommunicatorTest, NullIsAWorldOfOne) {
  Communicator const null;
  EXPECT_EQ(null.rank(), 0);
  EXPECT_EQ(null.size(), 1);
  expect_all_collectives(null);
  expect_strings_are_gathered(null);
}

TEST(CommunicatorTest, StringsOfAnyLengthAreGathered) {
  for (int ranks : rank_counts) {
    run_ranks(ranks, expect_strings_are_gathered);
  }
}

TEST(CommunicatorTest, SumsAreTakenInRankOrderWhateverTheArrivalOrder) {
  float const values[] = {1e8F, 1.0F, -1e8F};  // the sum in rank order is 0, in the order 0 2 1 it is 1
  for (int last : {0, 1, 2}) {
    run_ranks(3, [&](Communicator const& group) {
      if (group.rank() == last) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
      at::Tensor tensor = at::full({3}, values[group.rank()]);
      all_reduce(group, tensor).wait();
      EXPECT_EQ(tensor[0].item<float>(), 0.0F);
    });
  }
}

TEST(CommunicatorTest, WrongArgumentsAreRefusedBeforeAnythingIsSent) {
  Communicator const null;
  EXPECT_NE(message_of<std::invalid_argument>([&] { all_reduce(null, at::Tensor()); }), "");
  EXPECT_NE(message_of<std::invalid_argument>([&] { all_reduce(null, at::zeros({4, 4}).t()); }), "");
  EXPECT_NE(message_of<std::invalid_argument>([&] { all_reduce(null, at::zeros({4}, at::kInt)); }), "");
  EXPECT_NE(message_of<std::invalid_argument>([&] { broadcast(null, at::zeros({4}), 1); }), "");
  run_ranks(3, [&](Communicator const& group) {
    auto const wrong_size = [&] { all_gather(group, at::zeros({7}), at::zeros({2})); };
    EXPECT_EQ(message_of<std::invalid_argument>(wrong_size), "all_gather: the output has 7 elements, expected 2 x 3 ranks = 6");
    auto const wrong_type = [&] { reduce_scatter(group, at::zeros({2}, at::kDouble), at::zeros({6})); };
    EXPECT_NE(message_of<std::invalid_argument>(wrong_type), "");
  });
}

TEST(CommunicatorTest, ARankThatThrowsReleasesTheOthersWithItsNumberAndReason) {
  std::atomic<int> released{0};
  auto const body = [&](Communicator const& group) {
    if (group.rank() == 2) {
      throw std::runtime_error("out of luck");
    }
    std::string const message = message_of<PeerError>([&] {
      at::Tensor tensor = at::zeros({5});
      all_reduce(group, tensor).wait();
    });
    EXPECT_EQ(message, "rank 2 failed (out of luck)");
    released += message.empty() ? 0 : 1;
  };
  EXPECT_EQ(message_of<std::runtime_error>([&] { run_ranks(4, body); }), "rank 2: out of luck");
  EXPECT_EQ(released, 3);
}

TEST(CommunicatorTest, ARankThatEndsEarlyReleasesTheOthers) {
  auto const body = [](Communicator const& group) {
    if (group.rank() != 1) {
      barrier(group);
    }
  };
  EXPECT_NE(message_of<PeerError>([&] { run_ranks(3, body); }).find("rank 1 failed (it has ended"), std::string::npos);
}

TEST(CommunicatorTest, DifferentCallsAreNamed) {
  auto const body = [](Communicator const& group) {
    at::Tensor tensor = at::zeros({group.rank() == 0 ? 4 : 5});
    all_reduce(group, tensor).wait();
  };
  std::string const message = message_of<PeerError>([&] { run_ranks(2, body); });
  EXPECT_NE(message.find("rank 0 called all_reduce #1 of 4 Float, rank 1 called all_reduce #1 of 5 Float"), std::string::npos)
      << message;
}

TEST(CommunicatorTest, ADeadlineNamesTheCollectiveAndWhoIsMissing) {
  auto const body = [](Communicator const& group) {
    barrier(group);
    if (group.rank() == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      return;
    }
    at::Tensor tensor = at::zeros({6});
    all_reduce(group, tensor).wait();
  };
  std::string const message = message_of<PeerError>([&] { run_ranks(2, body, 0.1); });
  EXPECT_NE(message.find("rank 0: all_reduce #2 of 6 Float is not complete after 0.1 s (rank 1 has not arrived)"),
            std::string::npos) << message;
}

}  // namespace
}  // namespace duoflow::dist
