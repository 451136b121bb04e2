#pragma once
// Rank 0's part of a checkpoint whose files are all on disk: manifest, final name, `latest`, pruning. Private to this
// folder.

#include <cstdint>
#include <string>
#include <vector>

#include "dist/checkpoint/checkpoint.h"

namespace duoflow::dist {

class Publication {
 public:
  // `temporary`: the folder that the ranks wrote into; `id`: what temporary names of this writer end with.
  Publication(CheckpointWriterOptions const& options, std::int64_t step, std::string temporary, std::string id);

  // From the rename in it on the checkpoint exists. records: of every rank, as write_share returned them. Throws
  // CheckpointError, and then nothing is under the final name that was not there before.
  void commit(CheckpointState const& state, int world_size, std::vector<std::string> const& records);
  // `latest`, what the checkpoint replaced, and what has become too old.
  void finish();

 private:
  void publish();
  void publish_back();

  CheckpointWriterOptions const& options_;
  std::int64_t step_;
  std::string final_, temporary_, id_;
  bool replaced_ = false;
};

}  // namespace duoflow::dist
