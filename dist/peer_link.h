#pragma once
// PeerLink: records to and from the ranks of other hosts, as datagrams. Nothing in it waits for a peer: what cannot be
// delivered is lost, and the next record follows soon.

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "dist/peer_record.h"

namespace duoflow::dist {

// A datagram socket on a port that the system picks, on every interface.
class DatagramSocket {
 public:
  DatagramSocket();
  ~DatagramSocket();
  DatagramSocket(DatagramSocket const&) = delete;
  DatagramSocket& operator=(DatagramSocket const&) = delete;
  int descriptor() const { return descriptor_; }
  int port() const { return port_; }

 private:
  int descriptor_ = -1, port_ = 0;
};

struct RemotePeer {
  int rank = 0;
  std::string host;  // a name that this host can resolve
  int port = 0;
};

// Any thread may call.
class PeerLink {
 public:
  // `job`: the same random number on all ranks of the job; datagrams without it are ignored.
  PeerLink(DatagramSocket const& socket, int rank, std::uint64_t job, std::vector<RemotePeer> peers);
  // Looks the names of the hosts up, which can take seconds; until then, and for names without an address, send() does
  // nothing.
  void resolve();
  void send(PeerRecord const& record) const;
  // Everything that has arrived; times in the records are those of this host's clock.
  void receive(std::function<void(int rank, PeerRecord const&)> const& take) const;

 private:
  struct Address {
    std::uint32_t ipv4 = 0;
    std::uint16_t port = 0;
  };
  DatagramSocket const& socket_;
  int rank_;
  std::uint64_t job_;
  std::vector<RemotePeer> peers_;
  std::mutex mutable mutex_;
  std::vector<Address> addresses_;  // under mutex_; of peers_, once resolved
};

}  // namespace duoflow::dist
