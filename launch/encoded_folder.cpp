#include "launch/encoded_folder.h"

#include <filesystem>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "data/error.h"
#include "data/shards/shard_index.h"
#include "data/shards/shard_receipt.h"
#include "data/shards/shard_writer.h"

namespace duoflow::launch {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kNote = "duoflow encode ";

std::optional<data::ShardIndex> finished_folder(std::string const& directory) {
  if (!fs::exists(directory + "/manifest.json")) return std::nullopt;
  try {
    return data::ShardIndex(directory);
  } catch (data::DataError const&) {
    return std::nullopt;  // damaged: nothing in it is kept
  }
}

std::map<std::string, data::Receipt> known_shards(std::string const& directory,
                                                  std::optional<data::ShardIndex> const& index) {
  std::map<std::string, data::Receipt> known;
  for (auto const& shard : data::shards_with_receipts(directory))
    if (auto const receipt = data::read_receipt(shard)) known[shard] = *receipt;
  if (!index) return known;
  for (auto const& shard : index->shards()) {
    auto const& note = shard.attributes.note;
    auto const made_from = note.starts_with(kNote) ? note.substr(kNote.size()) : "";
    known[directory + "/" + shard.file] = {made_from, shard.attributes.producer, shard.bytes, shard.xxh3};
  }
  return known;
}

void require_one_producer(std::map<std::string, data::Receipt> const& known, std::string const& producer) {
  for (auto const& [shard, receipt] : known)
    if (receipt.producer != producer)
      throw data::DataError(fmt::format(
          "{} was encoded by {} (this checkpoint's reconstructor is {}: their latents do not mix); name another "
          "--out, or replace the folder's shards with --overwrite",
          shard, receipt.producer.empty() ? "an unnamed producer" : receipt.producer, producer));
}

// What a killed process was writing. Nobody else does: the folder is locked.
void remove_unfinished(std::string const& directory) {
  std::vector<fs::path> unfinished;
  for (auto const& entry : fs::directory_iterator(directory)) {
    auto const name = entry.path().filename().string();
    bool const temporary = name.find(".h5.tmp-") != std::string::npos || name.find(".h5.receipt.tmp-") != std::string::npos;
    if (name.starts_with("pairs-") && temporary) unfinished.push_back(entry.path());
  }
  for (auto const& path : unfinished) fs::remove(path);
}

}  // namespace

EncodedFolder::EncodedFolder(std::string const& directory, std::string const& producer, bool overwrite)
    : lock_(directory), directory_(directory) {
  auto const index = finished_folder(directory);
  if (index && index->kind() != data::ShardKind::pair)
    throw data::DataError(
        fmt::format("{} holds scene shards (they would be lost), name another folder for --out", directory));
  auto const known = known_shards(directory, index);
  if (!overwrite) {
    require_one_producer(known, producer);
    data::require_own_shards(directory, data::ShardKind::pair, [&](data::Attributes const& made) {
      return made.note.starts_with(kNote) && made.producer == producer;
    });
  }
  for (auto const& [shard, receipt] : known) data::write_receipt(shard, receipt);
  data::begin_folder(directory);
  remove_unfinished(directory);
}

void EncodedFolder::finish(std::vector<std::string> const& files) const {
  data::write_manifest(directory_, data::ShardKind::pair, files);
  data::remove_receipts(directory_);
}

std::string note_of(std::string const& made_from) { return std::string(kNote) + made_from; }

}  // namespace duoflow::launch
