#pragma once
// Receipts: how a command that was interrupted knows which of its shards are finished, and made as it would make them now.
// SHARD.receipt says what a shard was made from and which bytes it has. It is written once the shard is whole on the disk, and goes
// when the folder has its manifest.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace duoflow::data {

struct Receipt {
  std::string made_from;  // made_from_hash() of everything that decides the shard's bytes
  std::string producer;
  std::uint64_t bytes = 0;
  std::string xxh3;  // of the whole shard
};

std::string made_from_hash(std::string const& description);

// Of the shard as it is on the disk now. DataError when it cannot be read or the receipt not be written.
void write_receipt(std::string const& shard_path, std::string const& made_from, std::string const& producer);
void write_receipt(std::string const& shard_path, Receipt const& receipt);  // known already
std::optional<Receipt> read_receipt(std::string const& shard_path);         // nullopt: none, or not one of ours
// Whether the shard is there with a receipt for `made_from` and has exactly its bytes (reads all of them).
bool is_finished(std::string const& shard_path, std::string const& made_from);

std::vector<std::string> shards_with_receipts(std::string const& directory);  // paths, sorted
void remove_receipts(std::string const& directory);
// Temporary files that a killed writer of shards left. Call only as the folder's one writer.
void remove_leftovers(std::string const& directory);

}  // namespace duoflow::data
