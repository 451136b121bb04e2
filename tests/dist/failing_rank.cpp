// A program for runtime_test: ranks that fail in the way the first argument names.

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>

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
  Runtime runtime({1, behaviour == "last-hangs" ? 0.5 : 60.0});
  return run_guarded(runtime, [&] { return behave(runtime, behaviour); }, exit_code);
}
