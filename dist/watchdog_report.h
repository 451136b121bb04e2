#pragma once
// The texts of the watchdog: who arrived at a collective and where the others are.

#include <string>
#include <vector>

#include "dist/peer_record.h"

namespace duoflow::dist {

// A rank as another one sees it.
struct Sighting {
  std::string host;
  PeerRecord record;
};

// A rank that has given no sign of life for so long is called silent. Signs come every 0.1 s, from other hosts every
// 0.25 s, where some may be lost.
inline constexpr double silent_after_s = 1.5;

// "all_reduce #812 (bucket 3) of 4 Float is not complete on rank 0 after 30.1 s (the deadline is 30 s): arrived: ...".
// `ranks` is indexed by rank; `now` is a now_ns() of this host.
std::string overdue_collective(std::vector<Sighting> const& ranks, int rank, Group group, CollectiveNote const& note,
                               double deadline_s, std::int64_t now);
std::string overdue_step(std::vector<Sighting> const& ranks, int rank, double deadline_s, std::int64_t now);

std::string list_ranks(std::vector<int> const& ranks);  // "rank 3", "ranks 0-2, 5"

}  // namespace duoflow::dist
