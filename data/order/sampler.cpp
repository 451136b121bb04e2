#include "data/order/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "data/error.h"

namespace duoflow::data {
namespace {

// Keep the orders apart from other choices made with the same seed, and from each other.
constexpr std::uint64_t kOrderStream = 0x6f72646572ULL, kFolderStream = 0x666f6c646572ULL;

}  // namespace

Sampler::Sampler(std::uint64_t seed, std::uint64_t size, SamplerOptions options)
    : seed_(options.folder == 0 ? seed : random_bits(seed, options.folder, kFolderStream, 0)),
      size_(size),
      options_(std::move(options)) {
  if (size == 0) throw DataError("there is no sample to draw (the data folder is empty), make or choose another folder");
  if (options_.blocks.block > 0 && options_.blocks.window == 0)
    throw DataError("a block shuffle of 0 blocks at a time draws nothing (at least one needed), raise the window");
  if (options_.neighbours && options_.neighbours->size() != size)
    throw DataError(fmt::format("{} samples are put beside one another (the folder has {}), order all of them",
                                options_.neighbours->size(), size));
}

std::uint64_t Sampler::index_at(std::uint64_t position) const {
  auto const draw = options_.mixture ? options_.mixture->at(position) : Mixture::Draw{options_.folder, position};
  if (draw.folder != options_.folder)
    throw std::logic_error(
        fmt::format("position {} is of folder {}, folder {} was asked", position, draw.folder, options_.folder));
  auto const epoch = draw.own_position / size_, place = draw.own_position % size_;
  if (options_.blocks.block == 0) return KeyedPermutation(seed_, epoch, kOrderStream, size_)(place);
  auto const neighbour = block_shuffled(options_.blocks, seed_, epoch, size_, place);
  return options_.neighbours ? (*options_.neighbours)[neighbour] : neighbour;
}

std::pair<std::int64_t, std::int64_t> rank_block(std::int64_t batch, int rank, int size) {
  if (batch < 0 || size < 1 || rank < 0 || rank >= size)
    throw DataError(fmt::format("no block of a batch of {} for rank {} of {} (0 <= rank < size needed), correct the call", batch, rank, size));
  auto const base = batch / size, larger = batch % size;
  auto const first = rank * base + std::min<std::int64_t>(rank, larger);
  return {first, base + (rank < larger ? 1 : 0)};
}

}  // namespace duoflow::data
