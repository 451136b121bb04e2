// manifest.json of a data folder, its own hash made right here: shard names, attributes, and the plan of offsets and
// shapes that training reads shards by.

#include <stdexcept>

#include "data/error.h"
#include "data/file.h"
#include "data/shards/manifest.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

// The text, which ends with "}", with the hash of it as its last key.
std::string with_data_hash(std::string const& text) {
  if (!text.ends_with('}')) return text;
  return text.substr(0, text.size() - 1) + ",\"xxh3\":\"" + data::xxh3_hex(text.data(), text.size()) + "\"}\n";
}

bool read_data_manifest(std::string const& input) {
  static MemoryFolder const folder;
  folder.put("manifest.json", with_data_hash(input));
  return read_or_refused<data::DataError>([&] {
    for (auto const& shard : data::read_manifest(folder.path()).shards)
      if (shard.file.find('/') != std::string::npos) throw std::logic_error("a name that leads out of the folder");
  });
}

std::string data_manifest(std::string const& shards, std::string const& kind = "pair") {
  return R"({"kind":")" + kind + R"(","schema_version":1,"shards":[)" + shards + "]}";
}

std::string listed_shard(std::string const& file, std::string const& dataset) {
  return R"({"attributes":{"latent_mean":[1.0,2.5],"latent_std":[1.0,1.0],"note":"n","producer":"p"},"bytes":5000,"datasets":{"latents":)" +
         dataset + R"(},"file":")" + file + R"(","rest_xxh3":"0123456789abcdef","xxh3":"fedcba9876543210"})";
}

std::vector<std::string> data_manifest_seeds() {
  std::string const dataset =
      R"({"dtype":"bf16","offset":2048,"raw":true,"row_xxh3":["0123456789abcdef","0123456789abcdef"],"shape":[2,3,2]})";
  std::string const none = R"({"dtype":"f32","offset":0,"raw":false,"row_xxh3":[],"shape":[0,3]})";
  return {data_manifest(listed_shard("a.h5", dataset) + "," + listed_shard("b.h5", none)),
          data_manifest(""),
          data_manifest(listed_shard("../a.h5", dataset), "scene"),
          data_manifest(listed_shard(
              "a.h5", R"({"dtype":"u8","offset":4611686018427387904,"raw":true,"row_xxh3":7,"shape":[1]})")),
          data_manifest(std::string(40, '[') + std::string(40, ']')),
          R"({"xxh3":"0123456789abcdef"})"};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(data_manifest, duoflow::fuzz::read_data_manifest, duoflow::fuzz::data_manifest_seeds);
