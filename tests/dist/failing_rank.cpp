// A program for runtime_test: ranks that fail in the way the first argument names.

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <string_view>
#include <thread>

#include <unistd.h>

#include <ATen/ATen.h>

#include "dist/error.h"
#include "dist/runtime.h"

namespace duoflow::dist {
namespace {

constexpr int peer_error_code = 4, other_code = 7;

int exit_code(std::exception const& error) {
  return dynamic_cast<PeerError const*>(&error) != nullptr ? peer_error_code : other_code;
}

void wait_for_others(Runtime& runtime) {
  at::Tensor tensor = at::ones({1000});
  all_reduce(runtime.communicator(Device::cpu), tensor).wait();
}

int behave(Runtime& runtime, std::string const& behaviour) {
  bool const is_last = runtime.rank() == runtime.size() - 1;
  if (behaviour == "last-stops-before-the-group" && is_last) {
    std::raise(SIGSTOP);
  }
  runtime.communicator(Device::cpu);
  if (behaviour == "last-throws") {
    if (is_last) {
      throw std::runtime_error("the last rank gives up");
    }
    wait_for_others(runtime);
  } else if (behaviour == "all-throw") {
    throw std::runtime_error("everyone gives up");
  } else if (behaviour == "last-hangs") {
    if (is_last) {
      std::this_thread::sleep_for(std::chrono::seconds(30));
    }
    wait_for_others(runtime);
  } else if (behaviour == "last-stops" || behaviour == "last-is-killed") {
    CollectiveLabel const label("bucket", 3);
    wait_for_others(runtime);
    if (is_last) {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      std::raise(behaviour == "last-stops" ? SIGSTOP : SIGKILL);
    }
    wait_for_others(runtime);
  } else if (behaviour == "all-hang-in-a-step") {
    runtime.set_timeout(60, 0.5);
    runtime.at_step(12);
    std::this_thread::sleep_for(std::chrono::seconds(30));
  } else if (behaviour == "all-stop-and-go-on") {
    pid_t const sleeper = fork();
    if (sleeper == 0) {
      std::this_thread::sleep_for(std::chrono::seconds(3));
      kill(getppid(), SIGCONT);
      _exit(0);
    }
    std::raise(SIGSTOP);
    wait_for_others(runtime);
  } else if (behaviour == "stop-signal") {
    runtime.catch_stop_signals();
    std::raise(SIGUSR2);
    wait_for_others(runtime);
    return runtime.stop_requested() ? 75 : 1;
  } else {
    wait_for_others(runtime);
  }
  return 0;
}

}  // namespace
}  // namespace duoflow::dist

int main(int argc, char** argv) {
  using namespace duoflow::dist;
  std::string const behaviour = argc > 1 ? argv[1] : "";
  constexpr std::string_view short_deadline[] = {"last-hangs", "last-stops", "last-stops-before-the-group", "last-stops-before-mpi",
                                                 "all-stop-and-go-on"};
  bool const is_short = std::count(std::begin(short_deadline), std::end(short_deadline), behaviour) > 0;
  if (behaviour == "last-stops-before-mpi" &&
      std::stoi(std::getenv("OMPI_COMM_WORLD_RANK")) + 1 == std::stoi(std::getenv("OMPI_COMM_WORLD_SIZE"))) {
    std::raise(SIGSTOP);
  }
  Runtime runtime({1, is_short ? 2.0 : 60.0});
  return run_guarded(runtime, [&] { return behave(runtime, behaviour); }, exit_code);
}
