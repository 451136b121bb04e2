#include <filesystem>
#include <fstream>
#include <thread>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <torch/version.h>
#include <CLI/CLI.hpp>

#include "data/versions.h"
#include "dist/versions.h"
#include "launch/commands/commands.h"

namespace duoflow::launch {

Command add_doctor(CLI::App& root) {
  auto* app = root.add_subcommand("doctor", "print versions, devices and thread counts of every rank");
  return {app, [](dist::Runtime& runtime) {
            auto const communicator = runtime.communicator(dist::Device::cpu);
            auto const mine = fmt::format("rank {} on {}: {} hardware threads, {} compute threads, {} CUDA device(s)",
                                          runtime.rank(), runtime.host(), std::thread::hardware_concurrency(),
                                          at::get_num_threads(), at::hasCUDA() ? at::getNumGPUs() : 0);
            auto const ranks = dist::all_gather_strings(communicator, mine);
            if (runtime.rank() != 0) return 0;
            fmt::print("duoflow {}\nLibTorch {}\nCPU capability {}\nHDF5 {}\n", DUOFLOW_VERSION, TORCH_VERSION,
                       at::get_cpu_capability(), data::hdf5_version());
            for (auto const& [what, version] : dist::library_versions()) fmt::print("{} {}\n", what, version);
            for (auto const& line : ranks) fmt::print("{}\n", line);
            return 0;
          }};
}

}  // namespace duoflow::launch
