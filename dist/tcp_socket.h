#pragma once
// TCP connections between ranks: whole messages in blocking calls. Errors and ended connections are PeerError.

#include <cstddef>
#include <string>
#include <utility>

namespace duoflow::dist {

class TcpSocket {
 public:
  explicit TcpSocket(int descriptor) : descriptor_(descriptor) {}
  TcpSocket(TcpSocket&& other) noexcept : descriptor_(other.descriptor_) { other.descriptor_ = -1; }
  TcpSocket& operator=(TcpSocket&& other) noexcept;
  ~TcpSocket();

  void send(void const* data, std::size_t bytes) const;
  void receive(void* data, std::size_t bytes) const;
  void set_timeout(double seconds) const;  // of one call; 0, the default: none
  // Whoever waits in send or receive, here or at the other end, gets PeerError. Any thread.
  void shut_down() const;
  int descriptor() const { return descriptor_; }
  int release() { return std::exchange(descriptor_, -1); }  // the caller owns it now

 private:
  int descriptor_ = -1;
};

// The interface that ranks reach which connect to `host`: its number. "" (so every interface) where that is not known:
// when `host` is no address of this host, or a name that is loopback only here, as a host's own name may be in its
// /etc/hosts. Ports are not authenticated, so none is open on more interfaces than ranks need (README, Security).
std::string interface_of(std::string const& host);

// Of a socket bound to an interface (its number, or "": every one) and a port (0: one that the system picks). The caller
// owns it. PeerError.
int bound_descriptor(std::string const& interface, int port);

// Accepts connections on an interface, on a port that the system picks.
class TcpListener {
 public:
  explicit TcpListener(std::string const& interface = "");
  int port() const { return port_; }
  TcpSocket accept(double timeout_s) const;  // PeerError when nobody comes

 private:
  TcpSocket socket_;
  int port_ = 0;
};

// Tries until timeout_s has passed: whoever listens there may still be on its way. The PeerError is the bare reason.
TcpSocket connect_to(std::string const& host, int port, double timeout_s);

// Where hosts that reach `host` reach this one: the number of the interface towards it, or `host` itself where that is
// this host by a name of its own (localhost, for one). "" if it cannot be found out.
std::string address_towards(std::string const& host);

}  // namespace duoflow::dist
