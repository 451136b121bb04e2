#include "dist/watchdog.h"

#include <algorithm>

namespace duoflow::dist {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds tick_period{100};
constexpr int ticks_per_datagram = 3;
// Datagrams to many ranks are spread: so much time of a core for each (measured 2 us), at most one part in a thousand.
constexpr std::size_t ranks_per_tick = 16;

// A thread that was not run for so long belongs to a process that was stopped, or to a host that stood still (suspended
// by a scheduler, for one): deadlines do not run meanwhile.
constexpr double stopped_after_s = 2.0;

constexpr milliseconds word_window{200}, echo_window{1000}, word_poll{10};
constexpr int spoken_again = 4;
constexpr milliseconds leave_after{300};  // since the last word was spoken: the speaker's abort comes first
constexpr milliseconds longest_wait_for_word{3000};

double seconds(std::int64_t from, std::int64_t to) { return static_cast<double>(to - from) * 1e-9; }

}  // namespace

Watchdog::Watchdog(WatchdogOptions options)
    : options_(std::move(options)),
      heard_(options_.slots.size()),
      collective_s_(options_.collective_s),
      step_s_(options_.step_s),
      last_tick_ns_(now_ns()) {
  {
    std::lock_guard lock(mutex_);
    mine_.alive_ns = now_ns();
    publish();
  }
  thread_ = std::thread([this] { run(); });
}

void Watchdog::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Watchdog::set_deadlines(double collective_s, double step_s) {
  std::lock_guard lock(mutex_);
  collective_s_ = collective_s;
  step_s_ = step_s;
}

void Watchdog::issued(Group group, CollectiveNote const& note, std::function<bool()> is_done) {
  std::lock_guard lock(mutex_);
  mine_.last[static_cast<std::size_t>(group)] = note;
  if (!stopping_) outstanding_.push_back({group, note, std::move(is_done)});
  publish();
}

void Watchdog::completed(Group group, std::int64_t sequence) {
  std::lock_guard lock(mutex_);
  auto const found = std::find_if(outstanding_.begin(), outstanding_.end(), [&](Outstanding const& o) {
    return o.group == group && o.note.sequence == sequence;
  });
  if (found != outstanding_.end()) outstanding_.erase(found);
  std::int64_t& newest = mine_.completed[static_cast<std::size_t>(group)];
  newest = std::max(newest, sequence);
  publish();
}

void Watchdog::forget(Group group) {
  std::lock_guard lock(mutex_);
  std::erase_if(outstanding_, [&](Outstanding const& o) { return o.group == group; });
}

void Watchdog::at_step(std::int64_t step) {
  std::lock_guard lock(mutex_);
  mine_.step = step;
  mine_.step_ns = now_ns();
  step_stopped_ns_ = 0;
  publish();
}

Watchdog::Meeting::Meeting(Watchdog& watchdog, std::string_view what) : watchdog_(watchdog) {
  {
    std::lock_guard lock(watchdog.mutex_);
    sequence_ = ++watchdog.meetings_;
  }
  watchdog.issued(Group::setup, make_note(what, "", "", sequence_, 0));
}

void Watchdog::publish() {
  if (!stopping_) options_.slots[static_cast<std::size_t>(options_.rank)]->write(mine_);
}

void Watchdog::run() {
  if (options_.link) options_.link->resolve();
  auto const remote = static_cast<std::size_t>(std::count(options_.slots.begin(), options_.slots.end(), nullptr));
  int const every = ticks_per_datagram + static_cast<int>(remote / ranks_per_tick);
  for (int ticks = 0;; ++ticks) {
    tick(ticks % every == 0);
    std::unique_lock lock(mutex_);
    if (stop_changed_.wait_for(lock, tick_period, [this] { return stopping_; })) return;
  }
}

void Watchdog::tick(bool send) {
  hear();
  PeerRecord record;
  {
    std::lock_guard lock(mutex_);
    std::int64_t const now = now_ns();
    account_for_stops(now);
    mine_.alive_ns = now;
    publish();
    record = mine_;
  }
  if (send && options_.link) options_.link->send(record);
  drop_done();
  look_at_deadlines();
}

void Watchdog::account_for_stops(std::int64_t now) {
  std::int64_t const gap = now - last_tick_ns_;
  last_tick_ns_ = now;
  if (static_cast<double>(gap) * 1e-9 < stopped_after_s) return;
  for (Outstanding& o : outstanding_) o.stopped_ns += std::min(gap, now - o.note.issued_ns);
  step_stopped_ns_ += std::min(gap, now - mine_.step_ns);
}

void Watchdog::hear() {
  if (!options_.link) return;
  options_.link->receive([this](int rank, PeerRecord const& record) {
    std::lock_guard lock(mutex_);
    heard_[static_cast<std::size_t>(rank)] = record;
  });
}

std::vector<Sighting> Watchdog::sightings() {
  std::vector<Sighting> ranks;
  for (std::size_t rank = 0; rank < options_.slots.size(); ++rank) {
    std::lock_guard lock(mutex_);
    RecordSlot const* const slot = options_.slots[rank];
    ranks.push_back({options_.hosts[rank], slot != nullptr ? slot->read() : heard_[rank]});
  }
  return ranks;
}

// Asked without the mutex, which the step path takes: a device's driver may keep the question waiting.
void Watchdog::drop_done() {
  while (true) {
    Outstanding oldest;
    {
      std::lock_guard lock(mutex_);
      auto const found =
          std::find_if(outstanding_.begin(), outstanding_.end(), [](auto const& o) { return o.is_done != nullptr; });
      if (found == outstanding_.end()) return;
      oldest = *found;
    }
    if (!oldest.is_done()) return;
    completed(oldest.group, oldest.note.sequence);
  }
}

void Watchdog::look_at_deadlines() {
  auto const ranks = sightings();
  std::int64_t const now = now_ns();
  std::string report;
  bool leave = false;
  {
    std::lock_guard lock(mutex_);
    if (ending_ns_ == 0 && another_spoke(ranks)) ending_ns_ = now;
    leave = ending_ns_ != 0 && !leaving_ && now - ending_ns_ > std::chrono::nanoseconds(leave_after).count();
    leaving_ = leaving_ || leave;
    if (ending_ns_ == 0 && !told_) {
      for (Outstanding const& o : outstanding_) {
        if (seconds(o.note.issued_ns + o.stopped_ns, now) > collective_s_) {
          report = overdue_collective(ranks, options_.rank, o.group, o.note, collective_s_, now);
          break;
        }
      }
      if (report.empty() && mine_.step >= 0 && seconds(mine_.step_ns + step_stopped_ns_, now) > step_s_) {
        report = overdue_step(ranks, options_.rank, step_s_, now);
      }
      told_ = !report.empty();
    }
  }
  if (leave) options_.leave();
  if (!report.empty()) options_.end_job(report);
}

bool Watchdog::another_spoke(std::vector<Sighting> const& ranks) const {
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    if (static_cast<int>(rank) == options_.rank || ranks[rank].record.last_word != LastWord::spoken) continue;
    // A rank of this host claims its host's word itself: taken from it, nobody would speak.
    if (options_.slots[rank] == nullptr) options_.hush();
    return true;
  }
  return false;
}

bool Watchdog::wait_for_last_word() {
  auto const end = std::chrono::steady_clock::now() + longest_wait_for_word;
  while (std::chrono::steady_clock::now() < end) {
    hear();
    if (another_spoke(sightings())) {
      std::this_thread::sleep_for(leave_after);
      return true;
    }
    std::this_thread::sleep_for(word_poll);
  }
  return false;
}

std::vector<int> Watchdog::silent_ranks(double silent_s) {
  auto const ranks = sightings();
  std::int64_t const now = now_ns();
  std::vector<int> silent;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    PeerRecord const& record = ranks[rank].record;
    bool const is_other = static_cast<int>(rank) != options_.rank && record.last_word != LastWord::spoken;
    if (is_other && seconds(record.alive_ns, now) > silent_s) silent.push_back(static_cast<int>(rank));
  }
  return silent;
}

void Watchdog::repeat_last_word() {
  if (!options_.link) return;
  for (int again = 0; again < spoken_again; ++again) {
    PeerRecord record;
    {
      std::lock_guard lock(mutex_);
      record = mine_;
    }
    options_.link->send(record);
    std::this_thread::sleep_for(word_poll);
  }
}

bool Watchdog::take_last_word(bool is_echo) {
  auto const say = [this](LastWord word) {
    PeerRecord record;
    {
      std::lock_guard lock(mutex_);
      mine_.last_word = std::max(mine_.last_word, word);  // the other thread of this rank may have spoken meanwhile
      publish();
      record = mine_;
    }
    if (options_.link) options_.link->send(record);
  };
  // Another rank that is ahead of `mine`.
  auto const another_is_ahead = [this](LastWord mine, bool lower_only) {
    hear();
    auto const ranks = sightings();
    for (int rank = 0; rank < static_cast<int>(ranks.size()); ++rank) {
      if (rank == options_.rank) continue;
      LastWord const theirs = ranks[static_cast<std::size_t>(rank)].record.last_word;
      if (theirs > mine || (theirs == mine && (rank < options_.rank || !lower_only))) return true;
    }
    return false;
  };
  if (options_.slots.size() == 1) return true;
  LastWord const wish = is_echo ? LastWord::wanted_by_an_echo : LastWord::wanted;
  if (another_is_ahead(wish, /*lower_only=*/false)) return false;
  say(wish);
  auto const end = std::chrono::steady_clock::now() + (is_echo ? echo_window : word_window);
  while (std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(word_poll);
    if (another_is_ahead(wish, /*lower_only=*/true)) return false;
  }
  say(LastWord::spoken);
  return true;
}

}  // namespace duoflow::dist
