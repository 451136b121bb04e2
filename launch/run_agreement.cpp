#include "launch/run_agreement.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include <c10/core/Device.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "data/error.h"
#include "dist/checkpoint/checkpoint.h"
#include "dist/error.h"
#include "dist/versions.h"
#include "launch/model_setup.h"

namespace duoflow::launch {

extern char const* const build_id;  // made by cmake/WriteBuildId.cmake

namespace {

constexpr double kFileSystemDelay_s = 10;  // until a network file system shows another host's new file
constexpr std::chrono::milliseconds kPoll{20};

std::string on_host(std::size_t rank, std::vector<std::string> const& hosts) {
  return fmt::format("rank {} on host {}", rank, hosts[rank]);
}

// "A on rank 0 on host a, B on rank 1 on host b (2 more ranks differ from rank 0)"; "" when all are alike.
std::string difference(std::vector<std::string> const& values, std::vector<std::string> const& hosts) {
  auto const is_other = [&](std::string const& value) { return value != values.front(); };
  auto const first = std::find_if(values.begin(), values.end(), is_other);
  if (first == values.end()) return "";
  auto const others = std::count_if(values.begin(), values.end(), is_other) - 1;
  return fmt::format("{} on {}, {} on {}{}", values.front(), on_host(0, hosts), *first,
                     on_host(static_cast<std::size_t>(first - values.begin()), hosts),
                     others > 0 ? fmt::format(" ({} more ranks differ from rank 0)", others) : "");
}

std::string difference(dist::Communicator const& communicator, std::vector<std::string> const& hosts,
                       std::string const& mine) {
  return difference(dist::all_gather_strings(communicator, mine), hosts);
}

using Values = std::vector<std::pair<std::string, std::string>>;

std::string joined(Values const& values) {
  std::string text;
  for (auto const& [key, value] : values) text += fmt::format("{} = {}\n", key, value);
  return text;
}

void agree_on_config(dist::Communicator const& communicator, std::vector<std::string> const& hosts,
                     Values const& mine) {
  auto const hash = fmt::format("{:016x}", std::hash<std::string>()(joined(mine)));
  if (difference(communicator, hosts, hash).empty()) return;
  for (auto const& [key, value] : mine) {  // the program is the same everywhere, so are the keys
    auto const found = difference(communicator, hosts, value);
    if (!found.empty())
      throw ConfigError(fmt::format(
          "the configurations of the ranks differ: {} is {}; start all ranks with the same --config and overrides", key,
          found));
  }
}

bool reads(std::string const& path, std::string const& expected) {
  std::ifstream file(path);
  std::string text;
  return std::getline(file, text) && text == expected;
}

// Rank 0 writes a file with a random name; whoever is in the same folder of the same file system can read it.
void agree_on_folder(dist::Communicator const& communicator, std::vector<std::string> const& hosts,
                     std::string const& run, double patience_s) {
  std::string name;
  if (communicator.rank() == 0) {
    std::filesystem::create_directories(run);
    name = fmt::format(".duoflow-{:08x}{:08x}", std::random_device()(), std::random_device()());
    std::ofstream file(run + "/" + name);
    if (!(file << name << std::endl))
      throw data::DataError(fmt::format("{} cannot be written to; give a folder that may be, with free space", run));
  }
  name = dist::all_gather_strings(communicator, name).front();
  auto const runs = dist::all_gather_strings(communicator, run);
  auto const path = run + "/" + name;
  bool const same_name = run == runs.front();
  auto const end = std::chrono::steady_clock::now() +
                   std::chrono::duration<double>(same_name ? patience_s : std::min(patience_s, 1.0));
  bool seen = reads(path, name);
  while (!seen && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(kPoll);
    seen = reads(path, name);
  }
  auto const all_seen = dist::all_gather_strings(communicator, seen ? "1" : "0");
  if (communicator.rank() == 0) {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
  std::vector<std::string> blind;
  for (std::size_t rank = 0; rank < all_seen.size(); ++rank)
    if (all_seen[rank] == "0" && blind.size() < 4)
      blind.push_back(fmt::format("{} in {}", on_host(rank, hosts), runs[rank]));
  if (!blind.empty())
    throw ConfigError(fmt::format(
        "the run folder is not the same on all ranks: what {} wrote into {} is not seen by {}; give all ranks the same "
        "--run, on a file system that all hosts share",
        on_host(0, hosts), runs.front(), fmt::join(blind, ", ")));
}

}  // namespace

RunIdentity run_identity(std::string const& host, Config const& config, TrainArguments const& arguments) {
  RunIdentity identity{host,
                       fmt::format("{} (build {})", DUOFLOW_VERSION, build_id),
                       choose_device(config.dist.device).str(),
                       arguments.run,
                       {{"--resume", arguments.resume}},
                       dist::hardware(choose_device(config.dist.device).is_cuda()),
                       config.dist.reproducible};
  Config copy = config;
  for (auto const& key : config_keys(copy)) identity.config.emplace_back(key.name, key.get());
  return identity;
}

void agree_on_run(dist::Communicator const& communicator, RunIdentity const& mine, double patience_s) {
  if (communicator.size() == 1) return;
  auto const hosts = dist::all_gather_strings(communicator, mine.host);
  if (auto const found = difference(communicator, hosts, mine.version); !found.empty())
    throw dist::PeerError(
        fmt::format("the ranks run different programs: duoflow {}; install the same build on all hosts", found));
  if (auto const found = difference(communicator, hosts, mine.device); !found.empty())
    throw ConfigError(
        fmt::format("the ranks compute on different devices: {}; set dist.device=cpu, or start only on "
                    "hosts with a device that can be used",
                    found));
  if (auto const found = difference(communicator, hosts, mine.processor); mine.reproducible && !found.empty())
    throw ConfigError(
        fmt::format("dist.reproducible with ranks on different processors: {} (their sums differ in last bits); take hosts of one kind, or set "
                    "ATEN_CPU_CAPABILITY alike on all",
                    found));
  agree_on_config(communicator, hosts, mine.config);
  agree_on_folder(communicator, hosts, mine.run, patience_s);
}

void agree_on_run(dist::Runtime& runtime, Config const& config, TrainArguments const& arguments) {
  agree_on_run(runtime.communicator(dist::Device::cpu), run_identity(runtime.host(), config, arguments),
               std::min(kFileSystemDelay_s, config.dist.timeout_s / 2));
}

void agree_on_data(dist::Communicator const& communicator, std::string const& host, std::string const& directory,
                   std::string const& fingerprint) {
  if (communicator.size() == 1) return;
  auto const hosts = dist::all_gather_strings(communicator, host);
  auto const fingerprints = dist::all_gather_strings(communicator, fingerprint);
  auto folders = dist::all_gather_strings(communicator, fmt::format("{} (fingerprint {})", directory, fingerprint));
  for (std::size_t rank = 0; rank < folders.size(); ++rank)
    if (fingerprints[rank] == fingerprints.front()) folders[rank] = folders.front();
  if (auto const found = difference(folders, hosts); !found.empty())
    throw data::DataError(fmt::format("the ranks train on different data: {}; give all ranks the same --data", found));
}

void agree_on_weights(dist::Communicator const& communicator, std::string const& host, model::SceneModel const& model) {
  if (communicator.size() == 1) return;
  auto const hosts = dist::all_gather_strings(communicator, host);
  auto const tensors = model_tensors(model);
  if (difference(communicator, hosts, dist::model_fingerprint(tensors)).empty()) return;
  for (auto const& tensor : tensors) {  // the config is the same everywhere, so are the names
    auto const found = difference(communicator, hosts, dist::model_fingerprint({tensor}));
    if (!found.empty())
      throw ConfigError(
          fmt::format("the ranks start from different weights: the hash of {} is {}; give all ranks the same "
                      "training.init_from, or checkpoint, with the same content",
                      tensor.name, found));
  }
}

void agree_on_loss_networks(dist::Communicator const& communicator, std::string const& host,
                            std::string const& fingerprint) {
  if (communicator.size() == 1) return;
  auto const hosts = dist::all_gather_strings(communicator, host);
  auto const found = difference(communicator, hosts, fingerprint);
  if (!found.empty())
    throw ConfigError(
        fmt::format("the ranks have different networks for LPIPS or the perceptual loss: their hash is {}; give all "
                    "ranks the same files",
                    found));
}

}  // namespace duoflow::launch
