#pragma once
// A file that is a string.

#include <cstring>
#include <string>

#include "model/reference_checkpoint/byte_source.h"

namespace duoflow::model::test {

class BytesInMemory : public ByteSource {
 public:
  explicit BytesInMemory(std::string bytes) : bytes_(std::move(bytes)) {}
  std::uint64_t size() const override { return bytes_.size(); }
  void read(std::uint64_t offset, void* data, std::size_t bytes) const override {
    if (offset > bytes_.size() || bytes > bytes_.size() - offset) throw std::logic_error("a read beyond the end");
    if (bytes > 0) std::memcpy(data, bytes_.data() + offset, bytes);
  }

 private:
  std::string bytes_;
};

// What `function` throws as FormatError; "": nothing.
template <class Function>
std::string format_error(Function const& function) {
  try {
    function();
  } catch (FormatError const& error) {
    return error.what();
  }
  return "";
}

}  // namespace duoflow::model::test
