#include "dist/tcp_socket.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dist/error.h"

namespace duoflow::dist {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds shortest_pause{10}, longest_pause{500};
constexpr int waiting_connections = 1024;

PeerError failure(char const* what, int reason) {
  return PeerError(fmt::format("{} ({})", what, std::strerror(reason)));
}

Clock::time_point after(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

int milliseconds_until(Clock::time_point end) {
  return static_cast<int>(
      std::clamp<std::int64_t>(std::chrono::duration_cast<milliseconds>(end - Clock::now()).count(), 0, 1000));
}

using Addresses = std::shared_ptr<addrinfo>;

// Null and the reason when the name is not known.
Addresses look_up(std::string const& host, int port, int type, std::string& reason) {
  addrinfo wish{}, *found = nullptr;
  wish.ai_socktype = type;
  int const status = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &wish, &found);
  if (status == 0) return Addresses(found, freeaddrinfo);
  reason = gai_strerror(status);
  return nullptr;
}

std::string number_of(sockaddr const* address, socklen_t length) {  // "" if it has none
  char text[NI_MAXHOST];
  return getnameinfo(address, length, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) == 0 ? text : "";
}

bool is_loopback(std::string const& number) { return number.starts_with("127.") || number == "::1"; }

void send_at_once(int descriptor) {
  int const on = 1;  // small messages, each of which somebody waits for
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

// A connected descriptor; -1 and the reason when this address does not answer.
int try_address(addrinfo const& to, Clock::time_point end, std::string& reason) {
  int const descriptor = socket(to.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int error = descriptor < 0 || connect(descriptor, to.ai_addr, to.ai_addrlen) != 0 ? errno : 0;
  while (error == EINPROGRESS || error == EINTR) {
    pollfd wait{descriptor, POLLOUT, 0};
    int const ready = poll(&wait, 1, milliseconds_until(end));
    socklen_t length = sizeof(error);
    if (ready > 0) {
      getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length);
    } else if (Clock::now() >= end) {
      error = ETIMEDOUT;
    }
  }
  if (error == 0) {
    int off = 0;
    ioctl(descriptor, FIONBIO, &off);
    send_at_once(descriptor);
    return descriptor;
  }
  reason = std::strerror(error);
  if (descriptor >= 0) close(descriptor);
  return -1;
}

}  // namespace

TcpSocket& TcpSocket::operator=(TcpSocket&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

TcpSocket::~TcpSocket() {
  if (descriptor_ >= 0) close(descriptor_);
}

void TcpSocket::send(void const* data, std::size_t bytes) const {
  auto const* next = static_cast<char const*>(data);
  while (bytes > 0) {
    auto const sent = ::send(descriptor_, next, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) throw failure("nothing can be sent any more", errno);
    next += sent;
    bytes -= static_cast<std::size_t>(sent);
  }
}

void TcpSocket::receive(void* data, std::size_t bytes) const {
  auto* next = static_cast<char*>(data);
  while (bytes > 0) {
    auto const received = recv(descriptor_, next, bytes, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0) throw failure("nothing is received any more", errno);
    if (received == 0) throw PeerError("the connection was closed");
    next += received;
    bytes -= static_cast<std::size_t>(received);
  }
}

void TcpSocket::set_timeout(double seconds) const {
  timeval limit{};
  limit.tv_sec = static_cast<time_t>(seconds);
  limit.tv_usec = static_cast<suseconds_t>((seconds - static_cast<double>(limit.tv_sec)) * 1e6);
  for (int const what : {SO_RCVTIMEO, SO_SNDTIMEO}) setsockopt(descriptor_, SOL_SOCKET, what, &limit, sizeof(limit));
}

void TcpSocket::shut_down() const {
  if (descriptor_ >= 0) shutdown(descriptor_, SHUT_RDWR);
}

int bound_descriptor(std::string const& interface, int port) {
  std::string reason;
  // Every interface: IPv6's takes IPv4 too; a host without IPv6 has the other one.
  for (std::string const& number : interface.empty() ? std::vector<std::string>{"::", "0.0.0.0"} : std::vector{interface}) {
    Addresses const at = look_up(number, port, SOCK_STREAM, reason);
    if (!at) continue;
    TcpSocket socket(::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    int const off = 0, on = 1;
    if (at->ai_family == AF_INET6) setsockopt(socket.descriptor(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    // A job that is started again need not wait until the kernel has forgotten the last one's connections.
    if (port != 0) setsockopt(socket.descriptor(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (socket.descriptor() >= 0 && bind(socket.descriptor(), at->ai_addr, at->ai_addrlen) == 0) return socket.release();
    reason = std::strerror(errno);
  }
  throw PeerError(fmt::format("no port could be opened for the other ranks ({})", reason));
}

TcpListener::TcpListener(std::string const& interface) : socket_(bound_descriptor(interface, 0)) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (listen(socket_.descriptor(), waiting_connections) != 0 || getsockname(socket_.descriptor(), generic, &length) != 0)
    throw failure("no port could be opened for the other ranks", errno);
  port_ = ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                              : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

TcpSocket TcpListener::accept(double timeout_s) const {
  auto const end = after(timeout_s);
  while (true) {
    pollfd wait{socket_.descriptor(), POLLIN, 0};
    int const ready = poll(&wait, 1, milliseconds_until(end));
    if (ready == 0 && Clock::now() >= end) throw failure("no rank has connected", ETIMEDOUT);
    if (ready <= 0) continue;
    int const descriptor = accept4(socket_.descriptor(), nullptr, nullptr, SOCK_CLOEXEC);
    if (descriptor < 0) continue;
    send_at_once(descriptor);
    return TcpSocket(descriptor);
  }
}

TcpSocket connect_to(std::string const& host, int port, double timeout_s) {
  auto const end = after(timeout_s);
  std::string reason;
  for (auto pause = shortest_pause;; pause = std::min(2 * pause, longest_pause)) {
    Addresses const addresses = look_up(host, port, SOCK_STREAM, reason);
    for (auto const* to = addresses.get(); to != nullptr; to = to->ai_next) {
      int const descriptor = try_address(*to, end, reason);
      if (descriptor >= 0) return TcpSocket(descriptor);
    }
    if (Clock::now() + pause >= end) throw PeerError(reason);
    std::this_thread::sleep_for(pause);
  }
}

std::string address_towards(std::string const& host) {
  std::string reason;
  Addresses const addresses = look_up(host, 9, SOCK_DGRAM, reason);  // a datagram socket connects without a word
  if (!addresses) return "";
  TcpSocket const owner(socket(addresses->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  int const descriptor = owner.descriptor();
  sockaddr_storage mine{};
  socklen_t length = sizeof(mine);
  if (descriptor < 0 || connect(descriptor, addresses->ai_addr, addresses->ai_addrlen) != 0 ||
      getsockname(descriptor, reinterpret_cast<sockaddr*>(&mine), &length) != 0) {
    return "";
  }
  auto const number = number_of(reinterpret_cast<sockaddr*>(&mine), length);
  return is_loopback(number) ? host : number;
}

std::string interface_of(std::string const& host) {
  std::string reason;
  Addresses const addresses = look_up(host, 0, SOCK_DGRAM, reason);
  for (int const family : {AF_INET, AF_INET6}) {
    for (auto const* at = addresses.get(); at != nullptr; at = at->ai_next) {
      if (at->ai_family != family) continue;
      auto const number = number_of(at->ai_addr, at->ai_addrlen);
      if (is_loopback(number) && host != number && host != "localhost") return "";
      TcpSocket const probe(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      if (probe.descriptor() >= 0 && bind(probe.descriptor(), at->ai_addr, at->ai_addrlen) == 0) return number;
    }
  }
  return "";
}

}  // namespace duoflow::dist
