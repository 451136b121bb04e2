#pragma once
#include <stdexcept>

namespace duoflow::data {

// A shard, picture, scene or manifest that is missing, cut short, altered or senseless. Exit code 3.
// Message form: problem (why it is one), what to do; with file, dataset, sample and offset.
struct DataError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace duoflow::data
