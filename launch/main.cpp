// duoflow: one binary, one subcommand per job (DESIGN section 9). Only here are errors caught and turned into exit
// codes.

#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "data/error.h"
#include "dist/error.h"
#include "dist/runtime.h"
#include "launch/commands/commands.h"
#include "launch/config.h"
#include "launch/logging.h"

namespace {

using namespace duoflow;

int exit_code(std::exception const& error) {
  // A value that the libraries refuse came from the config or the command line.
  if (dynamic_cast<launch::ConfigError const*>(&error) || dynamic_cast<std::invalid_argument const*>(&error)) return 2;
  if (dynamic_cast<data::DataError const*>(&error) || dynamic_cast<dist::CheckpointError const*>(&error)) return 3;
  if (dynamic_cast<dist::PeerError const*>(&error)) return 4;
  return 1;
}

int run_command(launch::Command const& command, dist::Runtime& runtime) {
  try {
    return command.run(runtime);
  } catch (std::filesystem::filesystem_error const& error) {
    throw data::DataError(fmt::format("{}: {}; give a folder that exists and may be written to", error.path1().string(),
                                      error.code().message()));
  }
}

// Settings that libraries read before main, hence the second start.
//
// OMP_WAIT_POLICY: OpenMP threads that spin at a barrier lose when something else wants a core: beside one busy core of
// two the quickstart's `evaluate` took 25 s spinning and 11 s waiting passively.
// glibc.malloc.hugetlb: the heap in huge pages where the kernel leaves that to programs; fewer misses of the page tables'
// cache, which are dear in a virtual machine: 113 ms a step became 107. Only memory that is touched counts, as before.
void start_with_settings(char** argv) {
  bool const waits = std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr;
  char const* const given = std::getenv("GLIBC_TUNABLES");
  std::string tunables = given == nullptr ? "" : given;
  bool const pages = tunables.find("glibc.malloc.hugetlb") != std::string::npos;
  if (waits && pages) return;
  if (!waits) setenv("OMP_WAIT_POLICY", "passive", 1);
  if (!pages) setenv("GLIBC_TUNABLES", (tunables + (tunables.empty() ? "" : ":") + "glibc.malloc.hugetlb=1").c_str(), 1);
  execv("/proc/self/exe", argv);  // returns only when it cannot: then without
}

// How long the ranks of a job wait for each other before the config says so (dist.timeout_s).
double start_timeout_s() {
  char const* const text = std::getenv("DUOFLOW_START_TIMEOUT_S");
  if (text == nullptr) return dist::RuntimeOptions().timeout_s;
  char* end = nullptr;
  double const seconds = std::strtod(text, &end);
  if (end == text || *end != '\0' || !(seconds > 0) || !(seconds < 1e6))
    throw std::invalid_argument(
        fmt::format("DUOFLOW_START_TIMEOUT_S = \"{}\" is no number of seconds above 0, correct or unset it", text));
  return seconds;
}

// In the order of `duoflow --help`.
std::vector<launch::Command> add_commands(CLI::App& app) {
  struct Group {
    char const* title;
    std::vector<launch::Command> commands;
  };
  std::vector<Group> const groups = {
      {"Data",
       {launch::add_synth(app), launch::add_ingest(app), launch::add_encode(app), launch::add_split(app),
        launch::add_merge(app), launch::add_repack(app), launch::add_index(app)}},
      {"Training and its results",
       {launch::add_train(app), launch::add_evaluate(app), launch::add_edit(app), launch::add_compare(app)}},
      {"What is there", {launch::add_inspect(app), launch::add_verify(app), launch::add_doctor(app)}},
      {"To and from other programs", {launch::add_import(app), launch::add_export(app), launch::add_step(app)}}};
  std::vector<launch::Command> commands;
  for (auto const& group : groups)
    for (auto const& command : group.commands) {
      command.app->set_version_flag("--version", DUOFLOW_VERSION);
      command.app->group(group.title);
      commands.push_back(command);
    }
  return commands;
}

}  // namespace

int main(int argc, char** argv) {
  start_with_settings(argv);
  CLI::App app("duoflow trains latent-token editors: relighting and editing of multi-view scenes");
  app.set_version_flag("--version", DUOFLOW_VERSION);
  app.require_subcommand(1);
  auto const commands = add_commands(app);
  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  // A step frees and takes again the same large blocks: kept in the heap instead of going back to the kernel each time,
  // they need no fresh zeroed pages.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  try {
    dist::Runtime runtime({.timeout_s = start_timeout_s()});
    launch::start_logging(runtime.rank(), runtime.size());
    return dist::run_guarded(
        runtime,
        [&] {
          for (auto const& command : commands)
            if (command.app->parsed()) return run_command(command, runtime);
          return 2;
        },
        exit_code);
  } catch (std::exception const& error) {  // before the ranks know each other: variables, MPI, the device
    std::fprintf(stderr, "duoflow: %s\n", error.what());
    return exit_code(error);
  }
}
