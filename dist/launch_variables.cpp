#include "dist/launch_variables.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <limits>
#include <stdexcept>

#include <fmt/format.h>

namespace duoflow::dist {
namespace {

constexpr int largest_port = 65535;

class Reader {
 public:
  explicit Reader(Environment const& environment) : environment_(environment) {}

  bool has(char const* name) const { return environment_(name) != nullptr; }
  std::string text(char const* name) const {
    char const* const value = environment_(name);
    return value != nullptr ? value : "";
  }
  long number(char const* name) const {
    std::string const value = text(name);
    long result = 0;
    auto const [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
    if (error != std::errc() || end != value.data() + value.size() || result < 0 ||
        result > std::numeric_limits<int>::max()) {
      throw std::invalid_argument(
          fmt::format("{} = \"{}\" is not a number from 0 (the launcher sets it), correct it or "
                      "unset it",
                      name, value));
    }
    return result;
  }

 private:
  Environment const& environment_;
};

bool any(Reader const& read, std::initializer_list<char const*> names) {
  return std::any_of(names.begin(), names.end(), [&](char const* name) { return read.has(name); });
}

// Both or neither: one alone is a start that went wrong, and the process would train alone into a shared folder.
void require_pair(Reader const& read, char const* one, char const* other) {
  if (read.has(one) && !read.has(other)) {
    throw std::invalid_argument(fmt::format(
        "{} = {} is set, but {} is not (a rank needs both to know its place); set both, as torchrun does, or unset {} "
        "to run alone",
        one, read.text(one), other, one));
  }
}

// Where rank 0 serves, if MASTER_ADDR and MASTER_PORT say so.
void read_address(Reader const& read, LaunchVariables& result) {
  if (!read.text("MASTER_ADDR").empty()) result.host = read.text("MASTER_ADDR");
  if (read.has("MASTER_PORT")) {
    long const port = read.number("MASTER_PORT");
    if (port < 1 || port > largest_port) {
      throw std::invalid_argument(
          fmt::format("MASTER_PORT = {} is not a port (1 to {}), choose one that is free on the "
                      "host of rank 0",
                      port, largest_port));
    }
    result.port = static_cast<int>(port);
  }
}

void check_place(LaunchVariables const& result) {
  if (result.size < 1 || result.rank >= result.size) {
    throw std::invalid_argument(
        fmt::format("{} = {} and {} = {} contradict each other (ranks count from 0 to {} - 1), "
                    "correct the one that is wrong",
                    result.rank_variable, result.rank, result.size_variable, result.size, result.size_variable));
  }
}

LaunchVariables read_plain(Reader const& read) {
  require_pair(read, "RANK", "WORLD_SIZE");
  require_pair(read, "WORLD_SIZE", "RANK");
  LaunchVariables result;
  result.rank_variable = "RANK";
  result.size_variable = "WORLD_SIZE";
  result.rank = static_cast<int>(read.number("RANK"));
  result.size = static_cast<int>(read.number("WORLD_SIZE"));
  check_place(result);
  if (read.has("LOCAL_RANK")) result.local_rank = static_cast<int>(read.number("LOCAL_RANK"));
  if (read.has("LOCAL_RANK") && read.has("LOCAL_WORLD_SIZE") && result.local_rank >= read.number("LOCAL_WORLD_SIZE")) {
    throw std::invalid_argument(
        fmt::format("LOCAL_RANK = {} and LOCAL_WORLD_SIZE = {} contradict each other (ranks of a host count from 0), "
                    "correct them or "
                    "unset both",
                    result.local_rank, read.text("LOCAL_WORLD_SIZE")));
  }
  if (result.size == 1) return result;
  for (char const* const name : {"MASTER_ADDR", "MASTER_PORT"}) {
    if (read.text(name).empty()) {
      throw std::invalid_argument(
          fmt::format("RANK = {} and WORLD_SIZE = {} are set, but {} is not (the ranks meet at "
                      "MASTER_ADDR:MASTER_PORT, where rank 0 "
                      "serves); set it to the same value on all ranks",
                      result.rank, result.size, name));
    }
  }
  read_address(read, result);
  result.agent_serves = read.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  // The agent's store outlives a restart of the ranks, and with it the keys of those before.
  result.prefix =
      fmt::format("duoflow/{}/{}", read.text("TORCHELASTIC_RUN_ID"), read.text("TORCHELASTIC_RESTART_COUNT"));
  return result;
}

LaunchVariables read_slurm(Reader const& read) {
  require_pair(read, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID");
  LaunchVariables result;
  result.rank_variable = "SLURM_PROCID";
  result.size_variable = "SLURM_STEP_NUM_TASKS";
  result.rank = static_cast<int>(read.number("SLURM_PROCID"));
  result.size = static_cast<int>(read.number("SLURM_STEP_NUM_TASKS"));
  check_place(result);
  if (read.has("SLURM_LOCALID")) result.local_rank = static_cast<int>(read.number("SLURM_LOCALID"));
  if (result.size == 1) return result;
  long const job = read.has("SLURM_JOB_ID") ? read.number("SLURM_JOB_ID") : 0;
  long const step = read.has("SLURM_STEP_ID") ? read.number("SLURM_STEP_ID") : 0;
  result.host = first_host(read.text("SLURM_STEP_NODELIST"));
  result.port = slurm_port(job, step);
  read_address(read, result);
  if (result.host.empty()) {
    throw std::invalid_argument(fmt::format(
        "SLURM_STEP_NUM_TASKS = {} tasks, but neither SLURM_STEP_NODELIST nor MASTER_ADDR names a host (the ranks meet "
        "where rank 0 runs); set MASTER_ADDR to its host on all ranks",
        result.size));
  }
  result.prefix = fmt::format("duoflow/slurm-{}.{}", job, step);
  return result;
}

}  // namespace

Launcher launcher_of(Environment const& environment) {
  Reader const read(environment);
  if (read.has("TORCHELASTIC_RUN_ID")) return Launcher::variables;
  if (any(read, {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"})) return Launcher::mpi;
  if (any(read, {"RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"})) return Launcher::variables;
  return Launcher::none;
}

LaunchVariables read_launch_variables(Environment const& environment) {
  Reader const read(environment);
  bool const is_plain = any(read, {"TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"});
  LaunchVariables result = is_plain ? read_plain(read) : read_slurm(read);
  bool const is_given = !read.text("MASTER_ADDR").empty();
  result.address =
      fmt::format("{} = {}, {} = {}", is_given ? "MASTER_ADDR" : "first host of SLURM_STEP_NODELIST", result.host,
                  read.has("MASTER_PORT") ? "MASTER_PORT" : "port made of SLURM_JOB_ID", result.port);
  return result;
}

std::string first_host(std::string_view list) {
  std::string host;
  for (std::size_t at = 0; at < list.size() && list[at] != ','; ++at) {
    if (list[at] != '[') {
      host += list[at];
      continue;
    }
    std::size_t const end = std::min(list.find_first_of("-,]", at), list.size());
    host += list.substr(at + 1, end - at - 1);
    at = std::min(list.find(']', at), list.size() - 1);
  }
  return host;
}

int slurm_port(long job, long step) {
  constexpr int first = 15000, count = 15000;
  return static_cast<int>(first + (7 * job + step) % count);
}

}  // namespace duoflow::dist
