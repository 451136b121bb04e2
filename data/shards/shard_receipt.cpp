#include "data/shards/shard_receipt.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "data/file.h"

namespace duoflow::data {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr char const* kEnding = ".receipt";

}  // namespace

std::string made_from_hash(std::string const& description) { return xxh3_hex(description.data(), description.size()); }

void write_receipt(std::string const& shard_path, std::string const& made_from, std::string const& producer) {
  write_receipt(shard_path, {made_from, producer, FileDescriptor(shard_path).size(), xxh3_of_file(shard_path)});
}

void write_receipt(std::string const& shard_path, Receipt const& receipt) {
  Json const json = {{"made_from", receipt.made_from}, {"producer", receipt.producer}, {"bytes", receipt.bytes}, {"xxh3", receipt.xxh3}};
  write_atomically(shard_path + kEnding, json.dump() + "\n");
}

std::optional<Receipt> read_receipt(std::string const& shard_path) {
  if (!fs::is_regular_file(shard_path + kEnding)) return std::nullopt;
  try {
    auto const json = Json::parse(read_text(shard_path + kEnding));
    return Receipt{json.at("made_from"), json.at("producer"), json.at("bytes"), json.at("xxh3")};
  } catch (Json::exception const&) {
    return std::nullopt;  // cut short or another program's: the shard is made again
  }
}

bool is_finished(std::string const& shard_path, std::string const& made_from) {
  auto const receipt = read_receipt(shard_path);
  return receipt && receipt->made_from == made_from && fs::is_regular_file(shard_path) && fs::file_size(shard_path) == receipt->bytes &&
         xxh3_of_file(shard_path) == receipt->xxh3;
}

std::vector<std::string> shards_with_receipts(std::string const& directory) {
  std::vector<std::string> shards;
  std::error_code ignored;
  for (auto const& entry : fs::directory_iterator(directory, ignored))
    if (entry.path().extension() == kEnding) shards.push_back((entry.path().parent_path() / entry.path().stem()).string());
  std::sort(shards.begin(), shards.end());
  return shards;
}

void remove_leftovers(std::string const& directory) {
  std::error_code ignored;
  for (auto const& entry : fs::directory_iterator(directory, ignored)) {
    auto const name = entry.path().filename().string();
    if (name.find(".h5.tmp-") != std::string::npos || name.find(".receipt.tmp-") != std::string::npos) fs::remove(entry.path(), ignored);
  }
}

void remove_receipts(std::string const& directory) {
  for (auto const& shard : shards_with_receipts(directory)) fs::remove(shard + kEnding);
}

}  // namespace duoflow::data
