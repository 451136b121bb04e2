#pragma once
// Watchdog: ends the job when a collective or a step outlives its deadline, and says who arrived and where the others
// are.
//
// Every rank keeps a record of where it is (peer_record.h): in memory that the ranks of its host share, and in
// datagrams to the ranks of other hosts. An own thread gives signs of life, reads the others' records and looks at the
// deadlines; no collective, stuck call or computation blocks it. The step path only writes a record: about 0.1 us a
// collective. Any thread may call. One per process, ended before the memory that it shares is.

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "dist/peer_link.h"
#include "dist/watchdog_report.h"

namespace duoflow::dist {

struct WatchdogOptions {
  int rank = 0;
  std::vector<std::string> hosts;  // by rank
  std::vector<RecordSlot*> slots;  // by rank; null: a rank of another host
  std::unique_ptr<PeerLink> link;  // null: all ranks are on this host
  double collective_s = 600, step_s = 6000;
  // Given the report of what is overdue; called once, by the watchdog's thread. Does not return, except in tests.
  std::function<void(std::string const&)> end_job;
  // A rank of another host has said why the job ends: this host need not; may be called repeatedly.
  std::function<void()> hush;
  // And that was a moment ago; called by the watchdog's thread. Does not return, except in tests.
  std::function<void()> leave;
};

class Watchdog {
 public:
  explicit Watchdog(WatchdogOptions options);
  ~Watchdog() { stop(); }
  Watchdog(Watchdog const&) = delete;
  Watchdog& operator=(Watchdog const&) = delete;

  // Ends the thread; nothing is watched or shown to others any more, and calls do nothing.
  void stop();

  void set_deadlines(double collective_s, double step_s);

  // A collective was given to its backend, and is complete on this rank. With `is_done` the watchdog finds out itself.
  void issued(Group group, CollectiveNote const& note, std::function<bool()> is_done = {});
  void completed(Group group, std::int64_t sequence);
  void forget(Group group);  // the group has ended

  // A step begins: its deadline starts, and the last one's ends.
  void at_step(std::int64_t step);

  // A call that waits for all ranks outside any group (making one, the end of the job), with the deadline of a
  // collective.
  class Meeting {
   public:
    Meeting(Watchdog& watchdog, std::string_view what);
    ~Meeting() { watchdog_.completed(Group::setup, sequence_); }
    Meeting(Meeting const&) = delete;

   private:
    Watchdog& watchdog_;
    std::int64_t sequence_;
  };

  // True for the one rank of the job that shall say why it ends; blocks for 0.2 s, or for 1 s when the caller's trouble
  // may be the echo of another rank's. Among ranks that ask at the same time the lowest gets it.
  bool take_last_word(bool is_echo);
  // For a rank that did not get it: blocks until another one has spoken and had a moment to end the job (true), or for
  // 3 s (false).
  bool wait_for_last_word();

  // For the one that has spoken, before it ends: datagrams to other hosts get lost. Blocks for 40 ms where there are
  // any.
  void repeat_last_word();

  // The others that have given no sign of life for so long (stopped ones), except one that has said why the job ends.
  std::vector<int> silent_ranks(double seconds);

 private:
  struct Outstanding {
    Group group = Group::setup;
    CollectiveNote note;
    std::function<bool()> is_done;
    std::int64_t stopped_ns = 0;  // time since it was issued in which this process did not run
  };

  void run();
  void tick(bool send);
  void account_for_stops(std::int64_t now);  // mutex_ is held
  void drop_done();
  void look_at_deadlines();
  void publish();  // mutex_ is held
  std::vector<Sighting> sightings();
  bool another_spoke(std::vector<Sighting> const& ranks) const;
  void hear();

  WatchdogOptions const options_;
  std::mutex mutex_;
  std::condition_variable stop_changed_;
  PeerRecord mine_;                      // under mutex_, and all below
  std::deque<Outstanding> outstanding_;  // oldest first
  std::vector<PeerRecord> heard_;        // by rank, of other hosts
  double collective_s_, step_s_;
  std::int64_t step_stopped_ns_ = 0;  // as Outstanding::stopped_ns
  std::int64_t last_tick_ns_, ending_ns_ = 0;
  std::int64_t meetings_ = 0;
  bool stopping_ = false, told_ = false, leaving_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace duoflow::dist
