// RUN/checkpoints/latest: a name of a folder, or nothing.

#include <stdexcept>

#include "dist/checkpoint/folders.h"
#include "dist/error.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

bool read_latest(std::string const& input) {
  static MemoryFolder const folder;
  folder.put("latest", input);
  return read_or_refused<dist::CheckpointError>([&] {
    if (!dist::step_of_folder_name(dist::read_pointer(folder.path(), dist::kLatest)))
      throw std::logic_error("no name of a step's folder");
  });
}

std::vector<std::string> latest_seeds() {
  return {"step_000000012\n",     "step_1234567890123\r\n", "../step_000000012",   "/etc",
          "step_000000012/../..", "step_-00000001",         std::string(300, 's'), ""};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(latest, duoflow::fuzz::read_latest, duoflow::fuzz::latest_seeds);
