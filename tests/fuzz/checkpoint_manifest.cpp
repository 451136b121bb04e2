// manifest.json of a checkpoint, its own hash made right here.

#include <stdexcept>

#include "dist/checkpoint/manifest.h"
#include "dist/checkpoint/xxh3.h"
#include "dist/error.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

std::string with_checkpoint_hash(std::string text) {
  std::string const key = "\"manifest_xxh3\": \"";
  auto const at = text.find(key);
  if (at == std::string::npos || text.size() - at - key.size() < 16) return text;
  text.replace(at + key.size(), 16, std::string(16, '0'));
  return text.replace(at + key.size(), 16, dist::xxh3_of(text));
}

bool read_checkpoint_manifest_text(std::string const& input) {
  return read_or_refused<dist::CheckpointError>([&] {
    auto const manifest = dist::parse_manifest(with_checkpoint_hash(input), "in");
    for (auto const& file : manifest.files)
      if (file.name.find('/') != std::string::npos || file.name == "..")
        throw std::logic_error("a name that leads out of the folder");
    if (manifest.step < 0 || manifest.world_size < 1) throw std::logic_error("a count below zero");
    auto const counters = manifest.counters.dump();
  });
}

std::vector<std::string> checkpoint_manifest_seeds() {
  dist::Manifest manifest;
  manifest.step = 12;
  manifest.world_size = 2;
  manifest.duoflow_version = "1.2.3";
  manifest.counters = nlohmann::ordered_json::parse(R"({"step":12,"a":[0.1,null]})");
  manifest.config_yaml = "a: 1\n";
  manifest.files = {{"m.safetensors", "0123456789abcdef", 80}};
  dist::TensorEntry entry;
  entry.name = "w";
  entry.dtype = "F32";
  entry.shape = {2, 2};
  entry.offset = 64;
  entry.bytes = 16;
  entry.xxh3 = "0123456789abcdef";
  manifest.tensors = {{"model", "m.safetensors", entry}};
  auto const whole = dist::manifest_text(manifest);
  std::vector<std::string> seeds = {whole};
  for (auto const& [from, to] :
       std::vector<std::pair<std::string, std::string>>{{"\"m.safetensors\"", "\"../m\""},
                                                        {"\"step\": 12", "\"step\": 1e300"},
                                                        {"\"step\": 12", "\"step\": 12, \"step\": 13"},
                                                        {"\"a: 1\\n\"", std::string(40, '[') + std::string(40, ']')},
                                                        {"\"bytes\": 16", "\"bytes\": -1"}}) {
    auto text = whole;
    if (auto const at = text.find(from); at != std::string::npos) seeds.push_back(text.replace(at, from.size(), to));
  }
  return seeds;
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(checkpoint_manifest, duoflow::fuzz::read_checkpoint_manifest_text,
                    duoflow::fuzz::checkpoint_manifest_seeds);
