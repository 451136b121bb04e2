#pragma once
// EncodedFolder: the folder of pair shards that encode fills, from one writer and one reconstructor.

#include <string>
#include <vector>

#include "data/folder_lock.h"

namespace duoflow::launch {

class EncodedFolder {  // of rank 0, while the job writes
 public:
  // Locks the folder and takes its manifest away, which becomes receipts (shard_receipt.h) of the shards it lists.
  // DataError: another process writes it; it holds scene shards, or latents of another producer (unless `overwrite`).
  EncodedFolder(std::string const& directory, std::string const& producer, bool overwrite);
  // The shards are all there: writes the manifest, removes every other pair shard and the receipts.
  void finish(std::vector<std::string> const& files) const;

 private:
  data::FolderLock lock_;
  std::string directory_;
};

// A shard's note: how it was made, ending with the hash of what it was made from.
std::string note_of(std::string const& made_from);

}  // namespace duoflow::launch
