#pragma once
// BackgroundWriter: checkpoints written while training goes on.
//
// Training is held only for begin(), the copy of this rank's share into host memory that is reused. A thread of every
// rank writes and syncs its files. That all have done so is agreed upon through the sums that a step exchanges anyway
// (SaveReport): no thread but the caller's ever enters a collective. Then rank 0's thread writes the manifest, gives the
// folder its name, moves `latest` and prunes (checkpoint.h). One checkpoint at a time.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "dist/checkpoint/checkpoint.h"
#include "dist/communicator.h"

namespace duoflow::dist {

// What a rank tells the others: fields are summed over the ranks, by whatever exchange the caller has.
struct SaveReport {
  double number = 0;  // of the checkpoint under way, from rank 0: a sum that arrives late tells of an earlier one
  double written = 0, published = 0, failed = 0;  // ranks
};

struct SaveOutcome {
  std::int64_t step = 0;
  std::string folder;   // of the checkpoint
  std::string failure;  // "": it is complete. The same text on every rank, naming rank, host and cause
  double held_ms = 0;   // this rank's begin()
  double durable_ms = 0;    // from begin() to the final name on disk, `latest` moved and old ones gone; on rank 0
  std::uint64_t bytes = 0;  // of the tensors, all ranks'
};

enum class SaveMemory { copied, lent };  // lent: the state stays as it is until the outcome is there

class BackgroundWriter {
 public:
  // Collective. pinned: host memory that a CUDA device copies to without holding the host up.
  BackgroundWriter(Communicator const& communicator, CheckpointWriterOptions options, bool pinned = false);
  // Waits for the thread, which ends before its next file. What is not published yet has no final name and is removed
  // by the next writer.
  ~BackgroundWriter();
  BackgroundWriter(BackgroundWriter const&) = delete;

  // All ranks must call between the same two steps, with nothing under way. Not a collective and never throws for what
  // the disk or the state is: that comes with the outcome.
  void begin(CheckpointState const& state, SaveMemory memory = SaveMemory::copied);
  bool under_way() const;  // the same on every rank

  SaveReport report() const;  // to be summed
  // The sums of one exchange; all ranks must call with the same ones. The outcome when there is one; it is collective
  // in the calls in which something has changed.
  std::optional<SaveOutcome> take(SaveReport const& sums);
  // Ends what is under way. Collective. Throws std::logic_error when nothing is.
  SaveOutcome finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace duoflow::dist
