#pragma once
// A file's bytes by position. The model opens no file: who does hands one of these in.

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace duoflow::model {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual std::uint64_t size() const = 0;
  virtual void read(std::uint64_t offset, void* data, std::size_t bytes) const = 0;  // exactly; may throw
};

// The bytes are not what they should be. Message form: problem (why), what to do; without the file's name.
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace duoflow::model
