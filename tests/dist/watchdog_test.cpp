// Several watchdogs in one process, each a rank; what they report is collected instead of ending a job.

#include "dist/watchdog.h"

#include <atomic>
#include <memory>

#include <gtest/gtest.h>

#include "dist/communicator.h"

namespace duoflow::dist {
namespace {

using std::chrono::milliseconds;

constexpr double never_s = 1000;

class Ranks {
 public:
  explicit Ranks(int size) : slots_(static_cast<std::size_t>(size)) {}

  Watchdog& start(int rank, double collective_s, double step_s = never_s) {
    WatchdogOptions options;
    options.rank = rank;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      options.hosts.push_back(i < 2 ? "a" : "b");
      options.slots.push_back(&slots_[i]);
    }
    options.collective_s = collective_s;
    options.step_s = step_s;
    options.end_job = [this](std::string const& report) {
      std::lock_guard lock(mutex_);
      reports_.push_back(report);
    };
    options.hush = [] {};
    options.leave = [this] { ++left_; };
    watchdogs_.push_back(std::make_unique<Watchdog>(std::move(options)));
    return *watchdogs_.back();
  }
  RecordSlot& slot(int rank) { return slots_[static_cast<std::size_t>(rank)]; }
  std::vector<std::string> reports() {
    std::lock_guard lock(mutex_);
    return reports_;
  }
  std::string first_report() {
    for (int i = 0; i < 500 && reports().empty(); ++i) std::this_thread::sleep_for(milliseconds(10));
    return reports().empty() ? "" : reports().front();
  }
  int left() const { return left_; }
  void stop() { watchdogs_.clear(); }

 private:
  std::vector<RecordSlot> slots_;
  std::mutex mutex_;
  std::vector<std::string> reports_;
  std::atomic<int> left_{0};
  std::vector<std::unique_ptr<Watchdog>> watchdogs_;  // last: their threads use the above
};

CollectiveNote bucket(std::int64_t sequence, std::int64_t number) {
  return make_note("all_reduce", "bucket " + std::to_string(number), "Float", sequence, 4);
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(WatchdogTest, ADeadlineNamesTheCollectiveWhoArrivedAndWhereTheOthersAre) {
  Ranks ranks(4);
  Watchdog& reporter = ranks.start(0, 0.3);
  for (int rank : {1, 2, 3}) {
    Watchdog& other = ranks.start(rank, never_s);
    other.at_step(57);
    other.issued(Group::host, bucket(811, 2));
    other.completed(Group::host, 811);
    if (rank != 2) other.issued(Group::host, bucket(812, 3));
  }
  reporter.issued(Group::host, bucket(812, 3));
  std::string const report = ranks.first_report();
  EXPECT_SAYS(report, "all_reduce #812 (bucket 3) of 4 Float is not complete on rank 0 after 0.");
  EXPECT_SAYS(
      report,
      "(the deadline is 0.3 s): arrived: ranks 0, 1, 3; not arrived: rank 2 on host b, last seen after all_reduce #811 "
      "(bucket 2) 0.");
  EXPECT_SAYS(report, "s ago, step 57 (alive, so busy elsewhere); see what that rank is doing");
}

TEST(WatchdogTest, ARankWithoutASignOfLifeIsSilentWhetherItArrivedOrNot) {
  Ranks ranks(3);
  for (int rank : {1, 2}) {  // as a stopped process leaves them
    PeerRecord record;
    record.alive_ns = now_ns() - 10'000'000'000;
    record.last[static_cast<std::size_t>(Group::host)] = bucket(6 + rank, 1);
    record.last[static_cast<std::size_t>(Group::host)].issued_ns = record.alive_ns;
    ranks.slot(rank).write(record);
  }
  ranks.start(0, 0.2).issued(Group::host, bucket(8, 2));
  std::string const report = ranks.first_report();
  EXPECT_SAYS(report, "not arrived: rank 1 on host a, last seen in all_reduce #7 (bucket 1) 10.");
  EXPECT_SAYS(report, "arrived, then silent: rank 2 on host b, last seen in all_reduce #8 (bucket 1) 10.");
  EXPECT_SAYS(report, "(no sign of life for 10.");
}

TEST(WatchdogTest, ARankThatCalledSomethingElseIsNamed) {
  Ranks ranks(2);
  ranks.start(1, never_s).issued(Group::host, make_note("broadcast", "", "Long", 8, 1));
  ranks.start(0, 0.2).issued(Group::host, bucket(8, 0));
  EXPECT_SAYS(ranks.first_report(), "arrived: rank 0; called something else: rank 1 on host a, broadcast #8 of 1 Long");
}

TEST(WatchdogTest, AStepHasADeadlineToo) {
  Ranks ranks(2);
  ranks.start(0, never_s);
  Watchdog& slow = ranks.start(1, never_s, 0.3);
  slow.issued(Group::host, bucket(3, 0));
  slow.completed(Group::host, 3);
  slow.at_step(7);
  std::string const report = ranks.first_report();
  EXPECT_SAYS(report, "step 7 is not complete on rank 1 after 0.");
  EXPECT_SAYS(report, "last seen after all_reduce #3 (bucket 0)");
  EXPECT_SAYS(report, "the others: rank 0 on host a, not yet in any collective");
}

TEST(WatchdogTest, WhatIsInTimeIsNotReported) {
  Ranks ranks(1);
  Watchdog& watchdog = ranks.start(0, 0.25, 0.25);
  std::atomic<bool> done{false};
  watchdog.issued(Group::nccl, make_note("all_gather", "", "", 1, 0), [&] { return done.load(); });
  for (std::int64_t i = 1; i <= 50; ++i) {
    watchdog.at_step(i);
    watchdog.issued(Group::host, bucket(2 * i, 0));
    watchdog.issued(Group::host, bucket(2 * i + 1, 1));
    watchdog.completed(Group::host, 2 * i + 1);  // out of order
    watchdog.completed(Group::host, 2 * i);
    done = i > 5;
    Watchdog::Meeting const meeting(watchdog, "a meeting");
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_EQ(ranks.reports(), std::vector<std::string>());
}

TEST(WatchdogTest, WhatABackendOnlySaysWhenAskedIsWatched) {
  Ranks ranks(1);
  ranks.start(0, 0.2).issued(Group::nccl, make_note("all_gather", "statistics", "", 9, 0), [] { return false; });
  EXPECT_SAYS(ranks.first_report(), "all_gather #9 (statistics) is not complete on rank 0");
}

TEST(WatchdogTest, OneOfThoseWhoAskAtTheSameTimeGetsTheLastWordAndTheOthersLeave) {
  for (int round = 0; round < 3; ++round) {
    Ranks ranks(4);
    std::vector<Watchdog*> watchdogs;
    for (int rank = 0; rank < 4; ++rank) watchdogs.push_back(&ranks.start(rank, never_s));
    std::vector<int> speaks(4);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 4; ++rank) {
      bool const is_echo = rank == 0;  // the lowest rank has heard of another's trouble only
      threads.emplace_back([&, rank, is_echo] {
        auto const index = static_cast<std::size_t>(rank);
        speaks[index] = watchdogs[index]->take_last_word(is_echo) ? 1 : 0;
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(speaks[0], 0);
    EXPECT_EQ(speaks[1] + speaks[2] + speaks[3], 1);
    for (int i = 0; i < 300 && ranks.left() < 3; ++i) std::this_thread::sleep_for(milliseconds(10));
    EXPECT_EQ(ranks.left(), 3);
  }
}

// A rank's watchdog and its main thread may both have something to say.
TEST(WatchdogTest, AWordThatWasSpokenIsNotTakenBack) {
  Ranks ranks(2);
  Watchdog& watchdog = ranks.start(0, never_s);
  ASSERT_TRUE(watchdog.take_last_word(false));
  std::thread second([&] { watchdog.take_last_word(true); });
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(ranks.slot(0).read().last_word, LastWord::spoken);
    std::this_thread::sleep_for(milliseconds(10));
  }
  second.join();
}

// Two hosts in one process: no common memory, datagrams over the loopback.
TEST(WatchdogTest, RanksOfOtherHostsAreHeardOfByDatagrams) {
  std::vector<RecordSlot> slots(2);
  DatagramSocket const sockets[2];
  std::mutex mutex;
  std::vector<std::string> reports;
  std::vector<std::unique_ptr<Watchdog>> watchdogs;
  for (int rank : {0, 1}) {
    auto const own = static_cast<std::size_t>(rank), other = 1 - own;
    WatchdogOptions options;
    options.rank = rank;
    options.hosts = {"a", "b"};
    options.slots = {nullptr, nullptr};
    options.slots[own] = &slots[own];
    options.link = std::make_unique<PeerLink>(sockets[own], rank, 42,
                                              std::vector<RemotePeer>{{1 - rank, "localhost", sockets[other].port()}});
    options.collective_s = rank == 0 ? 1.2 : never_s;
    options.end_job = [&](std::string const& report) {
      std::lock_guard lock(mutex);
      reports.push_back(report);
    };
    options.hush = [] {};
    options.leave = [] {};
    watchdogs.push_back(std::make_unique<Watchdog>(std::move(options)));
  }
  watchdogs[1]->issued(Group::host, bucket(1, 0));
  watchdogs[0]->issued(Group::host, bucket(2, 1));
  for (int i = 0; i < 300; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
    std::lock_guard lock(mutex);
    if (!reports.empty()) break;
  }
  {
    std::lock_guard lock(mutex);
    ASSERT_EQ(reports.size(), 1U);
    EXPECT_SAYS(reports[0], "not arrived: rank 1 on host b, last seen in all_reduce #1 (bucket 0) 1.");
    EXPECT_SAYS(reports[0], "(alive, so busy elsewhere)");
  }
  EXPECT_TRUE(watchdogs[1]->take_last_word(false));
  EXPECT_FALSE(watchdogs[0]->take_last_word(false));
  watchdogs.clear();
}

TEST(PeerRecordTest, ReadersSeeWholeRecordsWhileAWriterWrites) {
  RecordSlot slot;
  EXPECT_EQ(slot.read().alive_ns, 0);
  std::atomic<bool> done{false};
  std::thread writer([&] {
    for (std::int64_t i = 1; i <= 20000; ++i) {
      PeerRecord record;
      record.step = record.step_ns = record.alive_ns = i;
      record.last.back().sequence = i;
      slot.write(record);
    }
    done = true;
  });
  std::int64_t newest = 0;
  while (!done) {
    PeerRecord const record = slot.read();
    if (record.alive_ns == 0) continue;
    ASSERT_EQ(record.step, record.alive_ns);
    ASSERT_EQ(record.last.back().sequence, record.alive_ns);
    ASSERT_GE(record.alive_ns, newest);
    newest = record.alive_ns;
  }
  writer.join();
  EXPECT_EQ(slot.read().alive_ns, 20000);
}

TEST(PeerRecordTest, LongNamesAreCut) {
  EXPECT_EQ(make_note("barrier", "", "", 3, 0).describe(), "barrier #3");
  EXPECT_EQ(make_note("all_reduce", std::string(40, 'x'), "BFloat16", 3, 5).describe(),
            "all_reduce #3 (" + std::string(23, 'x') + ") of 5 BFloat16");
}

TEST(CollectiveLabelTest, LabelsNest) {
  EXPECT_EQ(CollectiveLabel::current(), "");
  {
    CollectiveLabel const outer("bucket", 12);
    {
      CollectiveLabel const inner(std::string(40, 'y'));
      EXPECT_EQ(CollectiveLabel::current(), std::string(23, 'y'));
    }
    EXPECT_EQ(CollectiveLabel::current(), "bucket 12");
  }
  EXPECT_EQ(CollectiveLabel::current(), "");
}

TEST(ListRanksTest, RunsAreShortened) {
  EXPECT_EQ(list_ranks({4}), "rank 4");
  EXPECT_EQ(list_ranks({0, 1, 3}), "ranks 0, 1, 3");
  EXPECT_EQ(list_ranks({0, 1, 2, 3, 7, 9, 10, 11}), "ranks 0-3, 7, 9-11");
}

}  // namespace
}  // namespace duoflow::dist
