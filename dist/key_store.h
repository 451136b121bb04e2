#pragma once
// KeyStore: keys with values that all ranks of a job see, held by one process: c10d's TCPStore, without its header.
// Calls are short requests to that process; each throws PeerError when it does not answer. One thread at a time.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <c10/util/intrusive_ptr.h>

namespace c10d {
class Store;
}

namespace duoflow::dist {

class KeyStore {
 public:
  // Serves as long as the object lives, on this port (0: one that the system picks) of the interface that those who join
  // at `host` reach (tcp_socket.h: interface_of). PeerError when the port is taken.
  static std::shared_ptr<KeyStore> serve(std::string const& host, int port, std::string const& prefix, double timeout_s);
  // Joins a store that another process serves or will serve: tries until timeout_s has passed, then PeerError.
  // `address` stands for host and port in the message.
  static std::shared_ptr<KeyStore> join(std::string const& host, int port, std::string const& prefix, double timeout_s,
                                        std::string const& address);
  ~KeyStore();

  void set(std::string const& key, std::string const& value);
  bool has(std::string const& key);
  std::string get(std::string const& key);                                 // of a key that is there
  std::vector<std::string> get_all(std::vector<std::string> const& keys);  // all are there
  std::int64_t add(std::string const& key);                                // 1; how often, this one included
  int port() const;

  // For c10d's own groups: the same keys behind a prefix, over a connection of its own.
  c10::intrusive_ptr<c10d::Store> for_group(std::string const& prefix) const;

 private:
  struct State;
  explicit KeyStore(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace duoflow::dist
