#include "data/shard_receipt.h"

#include <filesystem>
#include <functional>
#include <sstream>

#include "data/file.h"

namespace duoflow::data {
namespace {

namespace fs = std::filesystem;

struct Receipt {
  std::string fingerprint, xxh3;
};

Receipt read_receipt(std::string const& shard) {
  Receipt receipt;
  std::error_code ignored;
  if (!fs::is_regular_file(shard + ".receipt", ignored) || !fs::is_regular_file(shard, ignored)) { return receipt; }
  std::istringstream(read_text(shard + ".receipt")) >> receipt.fingerprint >> receipt.xxh3;
  return receipt;
}

void remove_where(std::string const& folder, std::function<bool(std::string const&)> const& chosen) {
  std::error_code ignored;
  for (auto const& entry : fs::directory_iterator(folder, ignored)) {
    if (chosen(entry.path().filename().string())) { fs::remove(entry.path(), ignored); }
  }
}

}  // namespace

void write_receipt(std::string const& shard, std::string const& fingerprint) {
  write_atomically(shard + ".receipt", fingerprint + " " + xxh3_of_file(shard) + "\n");
}

bool has_receipt(std::string const& shard, std::string const& fingerprint) { return read_receipt(shard).fingerprint == fingerprint; }

bool is_reusable(std::string const& shard, std::string const& fingerprint) {
  Receipt const receipt = read_receipt(shard);
  return receipt.fingerprint == fingerprint && receipt.xxh3 == xxh3_of_file(shard);
}

void remove_receipts(std::string const& folder) {
  remove_where(folder, [](std::string const& name) { return name.ends_with(".h5.receipt"); });
}

void remove_leftovers(std::string const& folder) {
  remove_where(folder, [](std::string const& name) { return name.find(".h5.tmp-") != std::string::npos || name.find(".receipt.tmp-") != std::string::npos; });
}

}  // namespace duoflow::data
