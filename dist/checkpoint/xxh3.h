#pragma once
// XXH3, 64 bits, seed 0, as 16 lower-case hexadecimal digits, most significant first (what `xxhsum -H3` prints).

#include <cstddef>
#include <memory>
#include <string>

namespace duoflow::dist {

class Xxh3 {
 public:
  Xxh3();
  void update(void const* data, std::size_t bytes);
  void update(std::string const& text) { update(text.data(), text.size()); }
  std::string digest() const;  // of everything so far

 private:
  struct Release {
    void operator()(void* state) const;
  };
  std::unique_ptr<void, Release> state_;
};

std::string xxh3_of(std::string const& text);

}  // namespace duoflow::dist
