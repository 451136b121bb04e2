#pragma once
// KeyedPermutation: a bijection of 0..size-1 chosen by a key (a Feistel network with cycle walking). No memory; O(1) in
// both directions. The orders of all folders are made of it, so what it returns is fixed forever.

#include <array>
#include <cstdint>

namespace duoflow::data {

class KeyedPermutation {
 public:
  KeyedPermutation(std::uint64_t seed, std::uint64_t epoch, std::uint64_t stream, std::uint64_t size);  // size > 0
  std::uint64_t operator()(std::uint64_t index) const;  // index in [0, size)
  std::uint64_t inverse(std::uint64_t index) const;

 private:
  // Six rounds of a Feistel network with a good round function leave no visible structure (four are provably enough
  // against a chosen-plaintext observer, which an ordering is far from needing).
  static constexpr std::size_t kRounds = 6;

  std::uint64_t turned(std::uint64_t right, std::uint64_t key) const;  // the round function
  std::uint64_t forward(std::uint64_t index) const;
  std::uint64_t backward(std::uint64_t index) const;

  std::uint64_t size_;
  unsigned half_;  // bits of one half of the smallest domain of 2^(2 half) numbers that holds 0..size-1
  std::array<std::uint64_t, kRounds> keys_;
};

// Counter-based 64-bit random numbers for choices in this folder (orders, views): a pure function (SplitMix64 finaliser
// chain).
std::uint64_t random_bits(std::uint64_t seed, std::uint64_t position, std::uint64_t stream, std::uint64_t counter);

}  // namespace duoflow::data
