#include "dist/tcp_backend.h"

#include <atomic>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/error.h"
#include "dist/key_store.h"
#include "dist/tcp_socket.h"
#include "tests/dist/collective_cases.h"
#include "tests/dist/tcp_ranks.h"

namespace duoflow::dist {
namespace {

TEST(TcpBackendTest, EveryCollectiveFollowsItsClosedForm) {
  for (int ranks : {1, 2, 3, 5}) run_tcp_ranks(ranks, expect_all_collectives);
}

TEST(TcpBackendTest, SumsAreTakenInRankOrder) {
  float const values[] = {1e8F, 1.0F, -1e8F};  // the sum in rank order is 0, in the order 0 2 1 it is 1
  for (int last : {0, 1, 2}) {
    run_tcp_ranks(3, [&](Communicator const& group) {
      if (group.rank() == last) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      at::Tensor tensor = at::full({3}, values[group.rank()]);
      all_reduce(group, tensor).wait();
      EXPECT_EQ(tensor[0].item<float>(), 0.0F);
    });
  }
}

// The messages of the ranks that fail, by rank.
std::vector<std::string> messages(int ranks, std::function<void(Communicator const&)> const& body) {
  std::vector<std::string> found(static_cast<std::size_t>(ranks));
  run_tcp_ranks(ranks, [&](Communicator const& group) {
    try {
      body(group);
    } catch (PeerError const& error) {
      found[static_cast<std::size_t>(group.rank())] = error.what();
    }
  });
  return found;
}

TEST(TcpBackendTest, DifferentCallsAreNamedAndNobodyWaitsOn) {
  auto const found = messages(3, [](Communicator const& group) {
    at::Tensor tensor = at::zeros({group.rank() == 1 ? 5 : 4});
    all_reduce(group, tensor).wait();
  });
  for (auto const& told : found) {
    EXPECT_EQ(told.rfind("rank 0 called all_reduce #1 of 4 Float, rank 1 called all_reduce #1 of 5 Float", 0), 0)
        << told;
  }
}

TEST(TcpBackendTest, ARankThatLeavesIsNamedAndNobodyWaitsOn) {
  for (int gone : {0, 1, 2}) {
    auto const found = messages(3, [&](Communicator const& group) {
      barrier(group);
      if (group.rank() == gone) return;
      CollectiveLabel const label("bucket", 7);
      at::Tensor tensor = at::zeros({4});
      all_reduce(group, tensor).wait();
    });
    for (int rank : {0, 1, 2}) {
      auto const& told = found[static_cast<std::size_t>(rank)];
      EXPECT_EQ(told.empty(), rank == gone) << rank;
      if (rank == gone) continue;
      EXPECT_EQ(told.rfind("rank " + std::to_string(gone) + " on host ", 0), 0) << told;
      EXPECT_NE(told.find("has left all_reduce #2 (bucket 7) of 4 Float"), std::string::npos) << told;
    }
  }
}

TEST(TcpBackendTest, AFailedGroupFailsEveryLaterCollective) {
  messages(2, [](Communicator const& group) {
    if (group.rank() == 1) return;
    at::Tensor tensor = at::zeros({4});
    EXPECT_THROW(all_reduce(group, tensor).wait(), PeerError);
    EXPECT_THROW(barrier(group), PeerError);
  });
}

TEST(TcpSocketTest, WhereNobodyListensIsSaidAfterTheDeadline) {
  int port = 0;
  {
    TcpListener const listener;
    port = listener.port();
  }
  auto const begin = std::chrono::steady_clock::now();
  EXPECT_THROW(connect_to("localhost", port, 0.2), PeerError);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
  EXPECT_THROW(TcpListener().accept(0.1), PeerError);
}

TEST(TcpSocketTest, AMessageArrivesWholeWhateverItsSize) {
  TcpListener const listener;
  std::vector<char> const sent(3 << 20, 'x');
  std::thread sender([&] { connect_to("localhost", listener.port(), 10).send(sent.data(), sent.size()); });
  std::vector<char> received(sent.size());
  TcpSocket const socket = listener.accept(10);
  socket.receive(received.data(), received.size());
  sender.join();
  EXPECT_EQ(received, sent);
  EXPECT_THROW(socket.receive(received.data(), 1), PeerError);
}

TEST(TcpSocketTest, APortIsOpenOnTheInterfaceThatRanksConnectToAndOnNoOther) {
  EXPECT_EQ(interface_of("localhost"), "127.0.0.1");
  EXPECT_EQ(interface_of("127.0.0.1"), "127.0.0.1");
  EXPECT_EQ(interface_of("192.0.2.7"), "");             // of nobody: an address for documentation
  EXPECT_EQ(interface_of("no-such-host.invalid"), "");  // so every interface
  TcpListener const listener("127.0.0.1"), everywhere("");
  EXPECT_NO_THROW(connect_to("127.0.0.1", listener.port(), 5));
  EXPECT_THROW(connect_to("127.0.0.2", listener.port(), 0.2), PeerError);  // the same host by another address
  EXPECT_NO_THROW(connect_to("127.0.0.2", everywhere.port(), 5));
  EXPECT_THROW(TcpListener("192.0.2.7"), PeerError);
}

TEST(KeyStoreTest, AProgramThatIsNoStoreIsNotWaitedForBeyondTheDeadline) {
  TcpListener const stranger("127.0.0.1");  // its connections are taken by the kernel, and never answered
  try {
    KeyStore::join("127.0.0.1", stranger.port(), "job", 0.3, "MASTER_ADDR = a, MASTER_PORT = 1");
    FAIL() << "a stranger was taken for a store";
  } catch (PeerError const& error) {
    EXPECT_NE(std::string(error.what()).find("MASTER_PORT = 1: what listens there does not answer as rank 0"), std::string::npos) << error.what();
  }
}

TEST(KeyStoreTest, IsServedOnTheInterfaceOfItsAddressAlone) {
  auto const store = KeyStore::serve("localhost", 0, "job", 5);
  auto const other = KeyStore::join("127.0.0.1", store->port(), "job", 5, "rank 0");
  other->set("key", "value");
  EXPECT_EQ(store->get("key"), "value");
  EXPECT_THROW(KeyStore::join("127.0.0.2", store->port(), "job", 0.2, "rank 0"), PeerError);
  EXPECT_THROW(KeyStore::serve("127.0.0.1", store->port(), "job", 5), PeerError);  // taken
}

TEST(TcpSocketTest, ThisHostIsReachedByTheNameItIsReachedBy) {
  EXPECT_EQ(address_towards("localhost"), "localhost");
  EXPECT_EQ(address_towards("127.0.0.1"), "127.0.0.1");
  EXPECT_EQ(address_towards("no-such-host.invalid"), "");
}

}  // namespace
}  // namespace duoflow::dist
