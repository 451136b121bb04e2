#pragma once
// HostGroup: the ranks of this host, and memory that they share. What a rank writes there stays readable when the rank
// is stopped or killed.

#include <memory>
#include <string>
#include <vector>

#include "dist/peer_record.h"

namespace duoflow::dist {

class Session;

// Ranks are of one host when they run on one kernel, under one host name, with the same /dev/shm.
class HostGroup {
 public:
  // Collective. `session` null: a world of one. std::runtime_error when the memory cannot be had.
  explicit HostGroup(Session* session);
  ~HostGroup();
  HostGroup(HostGroup const&) = delete;
  HostGroup& operator=(HostGroup const&) = delete;

  int place() const { return place_; }  // of this rank among them, from 0
  int size() const { return static_cast<int>(ranks_.size()); }
  std::vector<int> const& ranks() const { return ranks_; }  // in order
  RecordSlot* slot(int rank) const;                         // null: a rank of another host

  // True once per host and job: for the first rank there that asks. Whoever gets it prints why the job ends.
  // A signal handler may ask.
  bool claim_last_word();

  // Ends those of these ranks that are on this host, stopped ones too. For jobs whose launcher does not.
  void kill(std::vector<int> const& ranks) const;

 private:
  struct Memory;
  void share_memory(Session& session, int rank);

  std::vector<int> ranks_{0};
  std::vector<int> processes_;  // descriptors of the processes of ranks_; -1: cannot be reached
  int place_ = 0;
  Memory* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace duoflow::dist
