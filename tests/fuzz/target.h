#pragma once
// What a fuzz target is: a reader of bytes from outside, and a few inputs to start from. The right answer to any input
// is that it is read, or the folder's own error. Anything else - another exception, a crash, a leak, memory beyond the
// input's worth - is a finding.
//
// Each file of this folder defines one target. It becomes a program of its own under libFuzzer (tests/fuzz.sh), and a
// part of fuzz_corpus_test, which needs no clang.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace duoflow::fuzz {

using Run = bool (*)(std::string const& input);  // true: read, false: refused
using Seeds = std::vector<std::string> (*)();    // the first is read

struct Target {
  char const* name;
  Run run;
  Seeds seeds;
};

inline std::vector<Target>& targets() {
  static std::vector<Target> all;
  return all;
}

struct Registration {
  explicit Registration(Target target) { targets().push_back(target); }
};

template <class Error, class Body>
bool read_or_refused(Body const& body) {
  try {
    body();
    return true;
  } catch (Error const&) {
    return false;
  }
}

// With DUOFLOW_FUZZ_SEEDS=FOLDER a fuzzer writes its seeds there and ends.
inline void write_seeds_if_asked(Seeds seeds) {
  char const* const folder = std::getenv("DUOFLOW_FUZZ_SEEDS");
  if (folder == nullptr) return;
  int number = 0;
  for (auto const& seed : seeds())
    std::ofstream(std::string(folder) + "/seed_" + std::to_string(number++), std::ios::binary) << seed;
  std::exit(0);
}

}  // namespace duoflow::fuzz

#ifdef DUOFLOW_LIBFUZZER
#define DUOFLOW_FUZZ_TARGET(name, run, seeds)                                         \
  extern "C" int LLVMFuzzerInitialize(int*, char***) {                                \
    duoflow::fuzz::write_seeds_if_asked(seeds);                                       \
    return 0;                                                                         \
  }                                                                                   \
  extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) { \
    run(std::string(reinterpret_cast<char const*>(data), size));                      \
    return 0;                                                                         \
  }
#else
#define DUOFLOW_FUZZ_TARGET(name, run, seeds) \
  static duoflow::fuzz::Registration const registration_of_##name(duoflow::fuzz::Target{#name, run, seeds})
#endif
