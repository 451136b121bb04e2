#include "dist/key_store.h"

#include <chrono>
#include <future>
#include <thread>

#include <fmt/format.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "dist/error.h"
#include "dist/tcp_socket.h"

namespace duoflow::dist {

struct KeyStore::State {
  c10::intrusive_ptr<c10d::TCPStore> tcp;
  c10::intrusive_ptr<c10d::Store> keys;  // tcp behind the prefix
};

namespace {

constexpr char const* this_host = "127.0.0.1";

template <typename Call>
auto as_peer_error(Call const& call) {
  auto const fail = [](char const* reason) {
    return PeerError(
        fmt::format("the key store of the job does not answer ({}): the process that holds it has ended, "
                    "look at the first message of the other ranks",
                    reason));
  };
  try {
    return call();
  } catch (c10::Error const& error) {
    throw fail(error.what_without_backtrace());
  } catch (std::exception const& error) {
    throw fail(error.what());
  }
}

c10d::TCPStoreOptions options(int port, double timeout_s) {
  c10d::TCPStoreOptions result;
  result.port = static_cast<std::uint16_t>(port);
  result.waitWorkers = false;
  result.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(timeout_s * 1000));
  return result;
}

using Store = c10::intrusive_ptr<c10d::TCPStore>;

// TCPStore waits without end for the first answer of whoever has taken its connection, which may be a program that knows nothing
// of stores. So it waits in a thread of its own, which outlives this call only where the process is about to end.
Store connected_store(std::string const& host, int port, double timeout_s, std::string const& address) {
  auto const made = std::make_shared<std::promise<Store>>();
  auto answer = made->get_future();
  std::thread([=] {
    try {
      made->set_value(c10::make_intrusive<c10d::TCPStore>(host, options(port, timeout_s)));
    } catch (...) {
      made->set_exception(std::current_exception());
    }
  }).detach();
  if (answer.wait_for(std::chrono::duration<double>(timeout_s)) != std::future_status::ready)
    throw PeerError(
        fmt::format("{}: what listens there does not answer as rank 0 of a job within {:g} s (another program holds that port), "
                    "choose another MASTER_PORT on all ranks, or end what uses it",
                    address, timeout_s));
  return as_peer_error([&] { return answer.get(); });
}

}  // namespace

KeyStore::KeyStore(std::unique_ptr<State> state) : state_(std::move(state)) {}
KeyStore::~KeyStore() = default;

std::shared_ptr<KeyStore> KeyStore::serve(std::string const& host, int port, std::string const& prefix,
                                          double timeout_s) {
  auto state = std::make_unique<State>();
  auto wish = options(port, timeout_s);
  wish.isServer = true;
  auto const taken = [&](std::string const& reason) {
    return PeerError(
        fmt::format("rank 0 cannot serve on port {} ({}), choose another MASTER_PORT on all ranks, or end what "
                    "uses that port (another rank 0, for one)",
                    port, reason));
  };
  auto const interface = interface_of(host);
  try {
    wish.masterListenFd = bound_descriptor(interface, port);  // c10d's own would be open on every interface
    state->tcp = c10::make_intrusive<c10d::TCPStore>(interface.empty() ? this_host : interface, wish);
  } catch (PeerError const& error) {
    throw taken(error.what());
  } catch (c10::Error const& error) {
    throw taken(error.what_without_backtrace());
  }
  state->keys = c10::make_intrusive<c10d::PrefixStore>(prefix, state->tcp);
  return std::shared_ptr<KeyStore>(new KeyStore(std::move(state)));
}

std::shared_ptr<KeyStore> KeyStore::join(std::string const& host, int port, std::string const& prefix, double timeout_s,
                                         std::string const& address) {
  // c10d tries again too, but with a warning for every try.
  try {
    connect_to(host, port, timeout_s);
  } catch (PeerError const& error) {
    throw PeerError(
        fmt::format("{} does not answer within {:g} s ({}): nobody serves there, or it cannot be reached; start "
                    "rank 0 on that host, and give all ranks the same address",
                    address, timeout_s, error.what()));
  }
  auto state = std::make_unique<State>();
  state->tcp = connected_store(host, port, timeout_s, address);
  state->keys = c10::make_intrusive<c10d::PrefixStore>(prefix, state->tcp);
  return std::shared_ptr<KeyStore>(new KeyStore(std::move(state)));
}

void KeyStore::set(std::string const& key, std::string const& value) {
  as_peer_error([&] { state_->keys->set(key, std::vector<std::uint8_t>(value.begin(), value.end())); });
}

bool KeyStore::has(std::string const& key) {
  return as_peer_error([&] { return state_->keys->check({key}); });
}

std::string KeyStore::get(std::string const& key) {
  auto const value = as_peer_error([&] { return state_->keys->get(key); });
  return std::string(value.begin(), value.end());
}

std::vector<std::string> KeyStore::get_all(std::vector<std::string> const& keys) {
  auto const values = as_peer_error([&] { return state_->keys->multiGet(keys); });
  std::vector<std::string> result;
  for (auto const& value : values) result.emplace_back(value.begin(), value.end());
  return result;
}

std::int64_t KeyStore::add(std::string const& key) {
  return as_peer_error([&] { return state_->keys->add(key, 1); });
}

int KeyStore::port() const { return state_->tcp->getPort(); }

c10::intrusive_ptr<c10d::Store> KeyStore::for_group(std::string const& prefix) const {
  return as_peer_error([&] {
    return c10::make_intrusive<c10d::PrefixStore>(prefix, c10::intrusive_ptr<c10d::Store>(state_->keys->clone()));
  });
}

}  // namespace duoflow::dist
