#include "dist/checkpoint/xxh3.h"

#include <new>

#include <fmt/format.h>
#include DUOFLOW_XXHASH  // cmake/Xxhash.cmake

namespace duoflow::dist {
namespace {

XXH3_state_t* as_state(void* state) { return static_cast<XXH3_state_t*>(state); }

}  // namespace

void Xxh3::Release::operator()(void* state) const { XXH3_freeState(as_state(state)); }

Xxh3::Xxh3() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH3_64bits_reset(as_state(state_.get()));
}

void Xxh3::update(void const* data, std::size_t bytes) {
  if (bytes > 0) XXH3_64bits_update(as_state(state_.get()), data, bytes);
}

std::string Xxh3::digest() const { return fmt::format("{:016x}", XXH3_64bits_digest(as_state(state_.get()))); }

std::string xxh3_of(std::string const& text) {
  Xxh3 hash;
  hash.update(text);
  return hash.digest();
}

}  // namespace duoflow::dist
