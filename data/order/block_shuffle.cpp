#include "data/order/block_shuffle.h"

#include <algorithm>

#include "data/order/permutation.h"

namespace duoflow::data {
namespace {

// Keep the choices of one epoch apart from each other and from other choices made with the same seed.
constexpr std::uint64_t kBlockStream = 0x626c6f636b73ULL, kWindowStream = 0x77696e646f77ULL,
                        kBorderStream = 0x626f72646572ULL;

// All blocks in permuted order, laid end to end. One of them may be shorter than the others.
struct Layout {
  std::uint64_t block, blocks, size, missing;  // missing: samples by which the short block is short
  KeyedPermutation order;
  std::uint64_t short_place;

  Layout(std::uint64_t samples_per_block, std::uint64_t seed, std::uint64_t epoch, std::uint64_t samples)
      : block(std::min(samples_per_block, samples)),
        blocks((samples + block - 1) / block),
        size(samples),
        missing(blocks * block - samples),
        order(seed, epoch, kBlockStream, blocks),
        short_place(order.inverse(blocks - 1)) {}

  std::uint64_t start(std::uint64_t place) const { return place * block - (place > short_place ? missing : 0); }
  // As if no block were short: `where / block` is the block's place, the rest the sample in it.
  std::uint64_t unshortened(std::uint64_t where) const {
    return where < start(short_place) + block - missing ? where : where + missing;
  }
};

}  // namespace

std::uint64_t block_shuffled(BlockShuffle const& shuffle, std::uint64_t seed, std::uint64_t epoch, std::uint64_t size,
                             std::uint64_t place) {
  Layout const layout(shuffle.block, seed, epoch, size);
  auto const window = layout.unshortened(place) / layout.block / shuffle.window;
  auto const first = layout.start(window * shuffle.window);
  auto const next = layout.start(std::min((window + 1) * shuffle.window, layout.blocks));
  KeyedPermutation const mixed(random_bits(seed, epoch, kWindowStream, window), 0, kWindowStream, next - first);
  auto const where = layout.unshortened(first + mixed(place - first));
  auto const sample = layout.order(where / layout.block) * layout.block + where % layout.block;
  return (sample + random_bits(seed, epoch, kBorderStream, 0) % size) % size;
}

}  // namespace duoflow::data
