#pragma once
// Ranks as threads of one process that talk over real TCP connections, for the tests of tcp_backend.

#include <condition_variable>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "dist/tcp_backend.h"

namespace duoflow::dist {

// A session whose ranks meet in memory.
class ThreadSession : public Session {
 public:
  struct Place {
    explicit Place(int size) : values(static_cast<std::size_t>(size)) {}
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::string> values, result;
    std::size_t arrived = 0;
    int round = 0;
  };

  ThreadSession(Place& place, int rank) : Session(20), place_(place) {
    world_ = {rank, static_cast<int>(place.values.size()), rank};
  }
  std::string address() const override { return "127.0.0.1"; }
  std::vector<std::string> gather_strings(std::string const& mine) override {
    std::unique_lock lock(place_.mutex);
    int const round = place_.round;
    place_.values[static_cast<std::size_t>(world_.rank)] = mine;
    if (++place_.arrived == place_.values.size()) {
      place_.result = place_.values;
      place_.arrived = 0;
      ++place_.round;
      place_.changed.notify_all();
    } else {
      place_.changed.wait(lock, [&] { return place_.round != round; });
    }
    return place_.result;
  }
  std::string broadcast_string(std::string const& of_rank_0) override { return gather_strings(of_rank_0).front(); }
  void barrier() override { gather_strings(""); }
  std::shared_ptr<Transport> make_host_transport(std::shared_ptr<Watchdog> watchdog) override {
    return make_tcp_transport(*this, timeout_s_, std::move(watchdog));
  }
  [[noreturn]] void abort(int) override { throw std::logic_error("a thread cannot end the job"); }
  bool ends_all_ranks() const override { return false; }

 private:
  Place& place_;
};

// Runs body once per rank; rethrows the first rank's exception, in rank order.
template <typename Body>
void run_tcp_ranks(int size, Body const& body) {
  ThreadSession::Place place(size);
  std::vector<RecordSlot> slots(static_cast<std::size_t>(size));
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        ThreadSession session(place, rank);
        WatchdogOptions options;
        options.rank = rank;
        options.hosts.assign(slots.size(), "here");
        for (RecordSlot& slot : slots) options.slots.push_back(&slot);
        options.end_job = [](std::string const&) {};
        options.hush = options.leave = [] {};
        auto const watchdog = std::make_shared<Watchdog>(std::move(options));
        auto const transport = session.make_host_transport(watchdog);
        body(Communicator(transport));
        transport->close();
      } catch (std::exception const&) {
        failures[static_cast<std::size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (auto const& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace duoflow::dist
