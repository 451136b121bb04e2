#pragma once
// Errors of this folder. Message form: problem (why it is one), what to do.

#include <stdexcept>

namespace duoflow::dist {

// A peer failed, a deadline passed, or the ranks disagree. Exit code 4.
struct PeerError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A checkpoint (or a safetensors file) is missing, cut short, altered or of a newer format. Exit code 3.
struct CheckpointError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace duoflow::dist
