#include "dist/store_session.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

#include "dist/error.h"
#include "dist/key_store.h"
#include "dist/tcp_backend.h"
#include "dist/tcp_socket.h"
#include "dist/watchdog_report.h"

namespace duoflow::dist {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Between two looks at a key. Many ranks ask one process, so each asks less often.
constexpr milliseconds shortest_pause{1}, longest_pause{20};
constexpr int ranks_per_millisecond = 10;

constexpr double farewell_s = 10;  // for the others to have taken their last answer

// The key that a rank leaves which cannot join: why.
constexpr char const* trouble = "trouble";

class StoreSession : public Session {
 public:
  StoreSession(LaunchVariables const& launch, double timeout_s);
  ~StoreSession() override;
  std::string address() const override { return address_; }
  std::string broadcast_string(std::string const& of_rank_0) override;
  std::vector<std::string> gather_strings(std::string const& mine) override;
  void barrier() override { meet(++meetings_, ""); }
  std::shared_ptr<Transport> make_host_transport(std::shared_ptr<Watchdog> watchdog) override {
    return make_tcp_transport(*this, timeout_s_, std::move(watchdog));
  }
  std::shared_ptr<KeyStore> key_store() override { return store_; }
  [[noreturn]] void abort(int exit_code) override {
    std::fflush(nullptr);
    std::_Exit(exit_code);
  }
  bool ends_all_ranks() const override { return false; }

 private:
  void join(LaunchVariables const& launch);
  void meet(int number, std::string const& mine);
  bool wait_for(std::string const& key, double seconds);  // false: it has not come
  std::string key(int number, int rank) const { return fmt::format("{}/{}", number, rank); }

  std::shared_ptr<KeyStore> store_;
  std::string address_;
  int meetings_ = 0;
};

StoreSession::StoreSession(LaunchVariables const& launch, double timeout_s) : Session(timeout_s) {
  world_ = {launch.rank, launch.size, launch.local_rank};
  bool const serves = launch.rank == 0 && !launch.agent_serves;
  store_ = serves ? KeyStore::serve(launch.host, launch.port, launch.prefix, timeout_s)
                  : KeyStore::join(launch.host, launch.port, launch.prefix, timeout_s, launch.address);
  address_ = address_towards(launch.host);
  if (address_.empty()) address_ = host_name();
  try {
    join(launch);
  } catch (std::exception const& error) {  // the others need not wait for this rank
    if (!store_->has(trouble)) {
      store_->set(trouble, fmt::format("rank {} on {}: {}", launch.rank, host_name(), error.what()));
      // Rank 0 serves what the others are to read.
      if (serves) std::this_thread::sleep_for(2 * longest_pause);
    }
    throw;
  }
}

void StoreSession::join(LaunchVariables const& launch) {
  auto const place = fmt::format("{} on host {}", launch.size, host_name());
  if (launch.rank == 0) {
    store_->set("size", place);
  } else if (!wait_for("size", timeout_s_)) {
    throw PeerError(fmt::format("rank 0 has not come to {} within {:g} s, see its messages, or why it was not started",
                                launch.address, timeout_s_));
  }
  auto const of_rank_0 = store_->get("size");
  if (std::stoi(of_rank_0) != launch.size) {
    throw std::invalid_argument(
        fmt::format("{} is {} of rank {}, {} of rank 0 (one job has one number of ranks); start all "
                    "ranks with the same, or each job with a MASTER_PORT of its own",
                    launch.size_variable, place, launch.rank, of_rank_0));
  }
  if (store_->add(fmt::format("rank/{}", launch.rank)) != 1) {
    throw std::invalid_argument(
        fmt::format("{} = {} is taken by another process of {} (rank numbers are unique, and so is the address of a "
                    "job), correct it, "
                    "or give each job a MASTER_PORT of its own",
                    launch.rank_variable, launch.rank, launch.address));
  }
  barrier();
}

StoreSession::~StoreSession() {
  if (is_broken() || std::uncaught_exceptions() > 0) return;
  // Rank 0 serves until the others have taken the answer of their last meeting.
  try {
    if (store_->add("left") == world_.size) store_->set("all-left", "");
    if (world_.rank == 0) wait_for("all-left", std::min(timeout_s_, farewell_s));
  } catch (std::exception const&) {  // rank 0 was faster; the job is over
  }
}

bool StoreSession::wait_for(std::string const& key, double seconds) {
  auto const end = Clock::now() + std::chrono::duration<double>(seconds);
  auto const longest = std::max(longest_pause, milliseconds(world_.size / ranks_per_millisecond));
  for (auto pause = shortest_pause; !store_->has(key); pause = std::min(2 * pause, longest)) {
    if (store_->has(trouble)) {
      throw PeerError(fmt::format("another rank could not join the job ({})", store_->get(trouble)));
    }
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(pause);
  }
  return true;
}

// Everyone leaves `mine` under the number of the meeting; the last to come says that all are there.
void StoreSession::meet(int number, std::string const& mine) {
  auto const all_there = fmt::format("{}/all", number);
  store_->set(key(number, world_.rank), mine);
  if (store_->add(fmt::format("{}/count", number)) == world_.size) store_->set(all_there, "");
  if (wait_for(all_there, timeout_s_)) return;
  std::vector<int> missing;
  for (int rank = 0; rank < world_.size; ++rank) {
    if (!store_->has(key(number, rank))) missing.push_back(rank);
  }
  throw PeerError(fmt::format("{} of {} {} not come within {:g} s, see the messages there, or why it was not started",
                              list_ranks(missing), world_.size, missing.size() == 1 ? "has" : "have", timeout_s_));
}

std::string StoreSession::broadcast_string(std::string const& of_rank_0) {
  int const number = ++meetings_;
  if (world_.rank == 0) {
    store_->set(key(number, 0), of_rank_0);
    return of_rank_0;
  }
  if (!wait_for(key(number, 0), timeout_s_)) {
    throw PeerError(fmt::format("rank 0 has not come within {:g} s, see what it is doing", timeout_s_));
  }
  return store_->get(key(number, 0));
}

std::vector<std::string> StoreSession::gather_strings(std::string const& mine) {
  int const number = ++meetings_;
  meet(number, mine);
  std::vector<std::string> keys;
  for (int rank = 0; rank < world_.size; ++rank) keys.push_back(key(number, rank));
  return store_->get_all(keys);
}

}  // namespace

std::unique_ptr<Session> make_store_session(LaunchVariables const& launch, double timeout_s) {
  return std::make_unique<StoreSession>(launch, timeout_s);
}

}  // namespace duoflow::dist
