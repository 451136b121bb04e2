#include "dist/peer_link.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <stdexcept>

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace duoflow::dist {
namespace {

struct Datagram {
  std::uint64_t job = 0;
  std::int64_t rank = 0, sent_ns = 0;
  PeerRecord record;
};

sockaddr_in internet_address(std::uint32_t ipv4, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ipv4;
  address.sin_port = htons(port);
  return address;
}

std::uint32_t look_up(std::string const& host) {
  addrinfo wish{}, *found = nullptr;
  wish.ai_family = AF_INET;
  wish.ai_socktype = SOCK_DGRAM;
  if (getaddrinfo(host.c_str(), nullptr, &wish, &found) != 0 || found == nullptr) return 0;
  auto const ipv4 = reinterpret_cast<sockaddr_in const*>(found->ai_addr)->sin_addr.s_addr;
  freeaddrinfo(found);
  return ipv4;
}

// The sender's clock started at another time than ours.
void shift_times(PeerRecord& record, std::int64_t ns) {
  for (CollectiveNote& note : record.last) note.issued_ns += ns;
  record.step_ns += ns;
  record.alive_ns += ns;
}

}  // namespace

DatagramSocket::DatagramSocket() : descriptor_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
  sockaddr_in address = internet_address(htonl(INADDR_ANY), 0);
  socklen_t length = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (descriptor_ < 0 || bind(descriptor_, generic, length) != 0 || getsockname(descriptor_, generic, &length) != 0) {
    int const reason = errno;
    if (descriptor_ >= 0) close(descriptor_);
    throw std::runtime_error(
        fmt::format("no datagram socket could be opened ({}; ranks tell each other over it where they "
                    "are), allow this host more open files or ports",
                    std::strerror(reason)));
  }
  port_ = ntohs(address.sin_port);
}

DatagramSocket::~DatagramSocket() { close(descriptor_); }

PeerLink::PeerLink(DatagramSocket const& socket, int rank, std::uint64_t job, std::vector<RemotePeer> peers)
    : socket_(socket), rank_(rank), job_(job), peers_(std::move(peers)) {}

void PeerLink::resolve() {
  std::map<std::string, std::uint32_t> known;
  std::vector<Address> addresses;
  for (RemotePeer const& peer : peers_) {
    auto const [at, is_new] = known.emplace(peer.host, 0);
    if (is_new) at->second = look_up(peer.host);
    addresses.push_back({at->second, static_cast<std::uint16_t>(peer.port)});
  }
  std::lock_guard lock(mutex_);
  addresses_ = std::move(addresses);
}

void PeerLink::send(PeerRecord const& record) const {
  Datagram const datagram{job_, rank_, now_ns(), record};
  std::lock_guard lock(mutex_);
  for (Address const& to : addresses_) {
    if (to.ipv4 == 0) continue;
    sockaddr_in const address = internet_address(to.ipv4, to.port);
    static_cast<void>(sendto(socket_.descriptor(), &datagram, sizeof(datagram), MSG_DONTWAIT | MSG_NOSIGNAL,
                             reinterpret_cast<sockaddr const*>(&address), sizeof(address)));
  }
}

void PeerLink::receive(std::function<void(int, PeerRecord const&)> const& take) const {
  Datagram datagram;
  while (true) {
    auto const bytes = recv(socket_.descriptor(), &datagram, sizeof(datagram), MSG_DONTWAIT | MSG_TRUNC);
    if (bytes < 0 && errno == ECONNREFUSED) continue;  // the echo of a datagram to a process that has ended
    if (bytes < 0) return;
    if (bytes != sizeof(datagram) || datagram.job != job_) continue;
    auto const is_sender = [&](RemotePeer const& peer) { return peer.rank == datagram.rank; };
    if (std::none_of(peers_.begin(), peers_.end(), is_sender)) continue;
    shift_times(datagram.record, now_ns() - datagram.sent_ns);
    take(static_cast<int>(datagram.rank), datagram.record);
  }
}

}  // namespace duoflow::dist
