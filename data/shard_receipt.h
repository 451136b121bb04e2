#pragma once
// A receipt beside a finished shard (SHARD.receipt): the fingerprint of everything it was made from and the hash of its bytes. An
// interrupted job that starts again keeps a shard only with a receipt that fits; the receipts go when the manifest is there.
// Private to this folder.

#include <string>

namespace duoflow::data {

void write_receipt(std::string const& shard, std::string const& fingerprint);
// The receipt's fingerprint is this one.
bool has_receipt(std::string const& shard, std::string const& fingerprint);
// ... and the shard's bytes are those it was written for.
bool is_reusable(std::string const& shard, std::string const& fingerprint);
// Receipts, and temporary files that a killed writer left. Call only as the folder's one writer.
void remove_receipts(std::string const& folder);
void remove_leftovers(std::string const& folder);

}  // namespace duoflow::data
