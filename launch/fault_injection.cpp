#include "launch/fault_injection.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

#include <fmt/format.h>

#include "dist/checkpoint/file_io.h"

namespace duoflow::launch {
namespace {

std::optional<int> whole_number(std::string_view text) {
  int number = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && number >= 0 ? std::optional(number) : std::nullopt;
}

struct Fault {
  int rank = 0, first = 0, error = 0, slow_ms = 0;
  bool kill = false, lasting = false;
};

std::optional<Fault> parse_fault(std::string_view text) {
  static std::map<std::string_view, int> const errors{
      {"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EROFS", EROFS}, {"EDQUOT", EDQUOT}};
  auto const one = text.find(':'), two = one == text.npos ? one : text.find(':', one + 1);
  if (two == text.npos) return std::nullopt;
  auto const rank = whole_number(text.substr(0, one)), first = whole_number(text.substr(one + 1, two - one - 1));
  if (!rank || !first) return std::nullopt;
  Fault fault{*rank, *first};
  auto action = text.substr(two + 1);
  if (action == "kill") {
    fault.kill = true;
    return fault;
  }
  if (action.starts_with("slow:")) {
    auto const ms = whole_number(action.substr(5));
    fault.slow_ms = ms.value_or(0);
    return ms ? std::optional(fault) : std::nullopt;
  }
  fault.lasting = action.starts_with("full:");
  if (fault.lasting) action.remove_prefix(5);
  auto const named = errors.find(action);
  if (named == errors.end()) return std::nullopt;
  fault.error = named->second;
  return fault;
}

}  // namespace

void inject_faults_from_environment(int rank) {
  char const* const text = std::getenv("DUOFLOW_FAULT");
  if (text == nullptr) return;
  auto const fault = parse_fault(text);
  if (!fault)
    throw std::invalid_argument(
        fmt::format("DUOFLOW_FAULT = \"{}\" is not RANK:N:ACTION (launch/fault_injection.h), correct or unset it", text));
  if (fault->rank != rank) return;
  auto const count = std::make_shared<std::atomic<int>>(0);
  dist::set_fault_hook([fault = *fault, count](dist::FileOperation, std::string const&) {
    int const point = (*count)++;
    if (point < fault.first) return 0;
    if (fault.slow_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(fault.slow_ms));
    if (point == fault.first && fault.kill) ::kill(::getpid(), SIGKILL);
    return point == fault.first || fault.lasting ? fault.error : 0;
  });
}

}  // namespace duoflow::launch
