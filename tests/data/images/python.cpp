#include "python.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

namespace duoflow::data::testing {
namespace {

std::string interpreter() { return std::string(DUOFLOW_SOURCE_DIR) + "/.venv/bin/python"; }

}  // namespace

bool python_has(std::string const& modules) {
  return std::system((interpreter() + " -c 'import " + modules + "' >/dev/null 2>&1").c_str()) == 0;
}

std::string run_python(std::string const& arguments) {
  auto const command = interpreter() + " " + arguments + " 2>&1";
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
  std::string text;
  std::array<char, 4096> buffer;
  while (auto const got = std::fread(buffer.data(), 1, buffer.size(), pipe.get())) { text.append(buffer.data(), got); }
  return text;
}

std::string twin(std::string const& name) { return std::string(DUOFLOW_SOURCE_DIR) + "/tests/data/images/" + name; }

std::string shared_data() {
  auto const folder = std::filesystem::path(DUOFLOW_SOURCE_DIR) / ".." / "shared" / "data";
  return std::filesystem::exists(folder / "lvsm_scenes") ? folder.lexically_normal().string() : "";
}

}  // namespace duoflow::data::testing
