#include "dist/watchdog_report.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace duoflow::dist {
namespace {

constexpr std::size_t shown_in_detail = 8;

double seconds(std::int64_t from, std::int64_t to) { return static_cast<double>(to - from) * 1e-9; }

bool is_silent(PeerRecord const& record, std::int64_t now) { return seconds(record.alive_ns, now) > silent_after_s; }

CollectiveNote const* latest(PeerRecord const& record) {
  CollectiveNote const* found = nullptr;
  for (CollectiveNote const& note : record.last) {
    if (note.sequence > 0 && (found == nullptr || note.issued_ns > found->issued_ns)) found = &note;
  }
  return found;
}

// "last seen in all_reduce #811 (bucket 2) 30.2 s ago, step 57"
std::string place(PeerRecord const& record, std::int64_t now) {
  std::string text = "not yet in any collective";
  if (CollectiveNote const* const note = latest(record)) {
    auto const group = static_cast<std::size_t>(note - record.last.data());
    text = fmt::format("last seen {} {} {:.1f} s ago", record.completed[group] >= note->sequence ? "after" : "in",
                       note->name(), seconds(note->issued_ns, now));
  }
  return record.step < 0 ? text : fmt::format("{}, step {}", text, record.step);
}

std::string life(PeerRecord const& record, std::int64_t now) {
  if (record.alive_ns == 0) return "never heard of (its host cannot be reached, or it has not started)";
  if (!is_silent(record, now)) return "alive, so busy elsewhere";
  return fmt::format("no sign of life for {:.1f} s: stopped, gone, or its host cannot be reached",
                     seconds(record.alive_ns, now));
}

std::string in_detail(std::vector<Sighting> const& ranks, std::vector<int> const& chosen, std::int64_t now) {
  std::vector<std::string> parts;
  for (int const rank : chosen) {
    if (parts.size() == shown_in_detail) {
      parts.push_back(fmt::format("and {} more", chosen.size() - shown_in_detail));
      break;
    }
    auto const& [host, record] = ranks[static_cast<std::size_t>(rank)];
    parts.push_back(record.alive_ns == 0 ? fmt::format("rank {} on host {}, {}", rank, host, life(record, now))
                                         : fmt::format("rank {} on host {}, {} ({})", rank, host, place(record, now),
                                                       life(record, now)));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace

std::string list_ranks(std::vector<int> const& ranks) {
  std::vector<std::string> runs;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    if (end - i > 2) {
      runs.push_back(fmt::format("{}-{}", ranks[i], ranks[end - 1]));
    } else {
      for (std::size_t k = i; k < end; ++k) runs.push_back(std::to_string(ranks[k]));
    }
    i = end;
  }
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", fmt::join(runs, ", "));
}

std::string overdue_collective(std::vector<Sighting> const& ranks, int rank, Group group, CollectiveNote const& note,
                               double deadline_s, std::int64_t now) {
  std::vector<int> arrived, silent, elsewhere, missing;
  for (int other = 0; other < static_cast<int>(ranks.size()); ++other) {
    PeerRecord const& record = ranks[static_cast<std::size_t>(other)].record;
    CollectiveNote const& theirs = record.last[static_cast<std::size_t>(group)];
    bool const is_here = theirs.sequence >= note.sequence;
    bool const is_same = theirs.sequence != note.sequence || theirs.describe() == note.describe();
    auto& list = !is_here ? missing : is_silent(record, now) ? silent : is_same ? arrived : elsewhere;
    list.push_back(other);
  }
  std::string text =
      fmt::format("{} is not complete on rank {} after {:.1f} s (the deadline is {:g} s): ", note.describe(), rank,
                  seconds(note.issued_ns, now), deadline_s);
  std::vector<std::string> parts;
  if (!arrived.empty()) parts.push_back("arrived: " + list_ranks(arrived));
  if (!missing.empty()) parts.push_back("not arrived: " + in_detail(ranks, missing, now));
  if (!silent.empty()) parts.push_back("arrived, then silent: " + in_detail(ranks, silent, now));
  if (!elsewhere.empty()) {
    std::vector<std::string> calls;
    for (int const other : elsewhere) {
      auto const& [host, record] = ranks[static_cast<std::size_t>(other)];
      calls.push_back(
          fmt::format("rank {} on host {}, {}", other, host, record.last[static_cast<std::size_t>(group)].describe()));
    }
    parts.push_back(fmt::format("called something else: {}", fmt::join(calls, "; ")));
  }
  bool const some_are_silent =
      std::any_of(ranks.begin(), ranks.end(), [&](Sighting const& s) { return is_silent(s.record, now); });
  std::string const advice =
      some_are_silent
          ? "look at that process and its host, then start again: the run goes on from its newest checkpoint"
      : !elsewhere.empty() ? "all ranks must make the same calls in the same order: start them with the same program, "
                             "configuration and data"
      : missing.empty() ? "all ranks are there: look at the network between them, or allow more time (dist.timeout_s)"
                        : "see what that rank is doing, or allow more time (dist.timeout_s)";
  return fmt::format("{}{}; {}", text, fmt::join(parts, "; "), advice);
}

std::string overdue_step(std::vector<Sighting> const& ranks, int rank, double deadline_s, std::int64_t now) {
  PeerRecord const& mine = ranks[static_cast<std::size_t>(rank)].record;
  std::vector<int> others;
  for (int other = 0; other < static_cast<int>(ranks.size()); ++other) {
    if (other != rank) others.push_back(other);
  }
  return fmt::format(
      "step {} is not complete on rank {} after {:.1f} s (the deadline is {:g} s), and no collective is overdue there: "
      "it "
      "computes, reads data or waits for a file; {}{}{}; see what it is doing, or allow more time "
      "(dist.step_timeout_s)",
      mine.step, rank, seconds(mine.step_ns, now), deadline_s, place(mine, now),
      others.empty() ? "" : "; the others: ", others.empty() ? "" : in_detail(ranks, others, now));
}

}  // namespace duoflow::dist
