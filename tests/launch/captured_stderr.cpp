#include "tests/launch/captured_stderr.h"

#include <fcntl.h>
#include <pty.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <stdexcept>

namespace duoflow::launch {

CapturedStderr::CapturedStderr() : original_(dup(STDERR_FILENO)) {
  std::string name = "/tmp/stderr_XXXXXX";
  int const writer = mkstemp(name.data());
  source_ = open(name.c_str(), O_RDONLY);
  unlink(name.c_str());
  if (writer < 0 || source_ < 0) throw std::runtime_error("no temporary file for stderr");
  dup2(writer, STDERR_FILENO);
  close(writer);
}

CapturedStderr::CapturedStderr(int columns) : original_(dup(STDERR_FILENO)) {
  winsize window{};
  window.ws_col = static_cast<unsigned short>(columns);
  int terminal = -1;
  if (openpty(&source_, &terminal, nullptr, nullptr, &window) != 0) throw std::runtime_error("no pseudo-terminal");
  fcntl(source_, F_SETFL, O_NONBLOCK);
  dup2(terminal, STDERR_FILENO);
  close(terminal);
}

CapturedStderr::~CapturedStderr() {
  dup2(original_, STDERR_FILENO);
  close(original_);
  close(source_);
}

std::string CapturedStderr::text() {
  std::string text;
  std::array<char, 4096> part{};
  for (auto got = read(source_, part.data(), part.size()); got > 0; got = read(source_, part.data(), part.size())) {
    text.append(part.data(), static_cast<std::size_t>(got));
  }
  for (auto at = text.find("\r\n"); at != std::string::npos; at = text.find("\r\n", at)) text.erase(at, 1);
  return text;
}

}  // namespace duoflow::launch
