#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <torch/version.h>
#include <CLI/CLI.hpp>

#include "data/error.h"
#include "data/versions.h"
#include "dist/versions.h"
#include "launch/commands/commands.h"

namespace duoflow::launch {
namespace {

// Rank 0 writes a file, all look for it.
void check_shared(dist::Communicator const& communicator, std::string const& host, std::string const& folder) {
  auto const number = dist::all_gather_strings(communicator, std::to_string(std::random_device{}())).front();
  auto const path = fmt::format("{}/.duoflow-doctor-{}", folder, number);
  bool written = true;
  if (communicator.rank() == 0) written = static_cast<bool>(std::ofstream(path) << number << std::flush);
  dist::barrier(communicator);
  bool const seen = std::filesystem::exists(path);
  auto const blind =
      dist::all_gather_strings(communicator, seen ? "" : fmt::format("rank {} on {}", communicator.rank(), host));
  std::error_code ignored;
  if (communicator.rank() == 0) std::filesystem::remove(path, ignored);
  std::string missing;
  for (auto const& rank : blind) missing += (missing.empty() || rank.empty() ? "" : ", ") + rank;
  if (!written || !missing.empty())
    throw data::DataError(fmt::format("{}: {}; give a folder on a file system that all hosts share and may write to",
                                      folder,
                                      written ? fmt::format("what rank 0 writes is not seen by {}", missing)
                                              : std::string("rank 0 cannot write to it")));
}

}  // namespace

Command add_doctor(CLI::App& root) {
  auto folder = std::make_shared<std::string>();
  auto* app = root.add_subcommand("doctor", "print versions, devices and thread counts of every rank");
  app->add_option("--shared", *folder,
                  "also check that every rank sees the same folder here (give where runs and data lie)");
  return {app, [folder](dist::Runtime& runtime) {
            auto const communicator = runtime.communicator(dist::Device::cpu);
            if (!folder->empty()) check_shared(communicator, runtime.host(), *folder);
            auto const mine = fmt::format("rank {} on {}: {} hardware threads, {} compute threads, {} CUDA device(s)",
                                          runtime.rank(), runtime.host(), std::thread::hardware_concurrency(),
                                          at::get_num_threads(), at::hasCUDA() ? at::getNumGPUs() : 0);
            auto const ranks = dist::all_gather_strings(communicator, mine);
            if (runtime.rank() != 0) return 0;
            fmt::print("duoflow {}\nLibTorch {}\nCPU capability {}\nHDF5 {}\n", DUOFLOW_VERSION, TORCH_VERSION,
                       at::get_cpu_capability(), data::hdf5_version());
            for (auto const& [what, version] : dist::library_versions()) fmt::print("{} {}\n", what, version);
            for (auto const& line : ranks) fmt::print("{}\n", line);
            if (!folder->empty()) fmt::print("{}: every rank sees the same folder\n", *folder);
            return 0;
          }};
}

}  // namespace duoflow::launch
