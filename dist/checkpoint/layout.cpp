#include "dist/checkpoint/layout.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "dist/checkpoint/checkpoint.h"

namespace duoflow::dist {
namespace {

using Runs = std::vector<std::vector<std::size_t>>;

// Each tensor goes to the slot in which its middle lies when the total is cut into equal slots.
Runs cut_by_bytes(std::vector<std::uint64_t> const& bytes, std::uint64_t slots) {
  Runs runs(slots);
  auto const total = static_cast<double>(std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{0}));
  double before = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    double const middle = before + static_cast<double>(bytes[i]) / 2;
    auto const slot = total > 0 ? static_cast<std::uint64_t>(middle / total * static_cast<double>(slots)) : 0;
    runs[std::min(slot, slots - 1)].push_back(i);
    before += static_cast<double>(bytes[i]);
  }
  return runs;
}

}  // namespace

std::vector<FilePlan> plan_files(std::vector<std::uint64_t> const& model_bytes,
                                 std::vector<std::uint64_t> const& state_bytes, int world_size,
                                 std::uint64_t max_file_bytes) {
  auto const world = static_cast<std::uint64_t>(world_size);
  std::uint64_t const total = std::accumulate(model_bytes.begin(), model_bytes.end(), std::uint64_t{0});
  std::uint64_t const rounds = std::max<std::uint64_t>(1, total / world / max_file_bytes + 1);
  Runs model = cut_by_bytes(model_bytes, std::min(rounds * world, std::max<std::uint64_t>(1, model_bytes.size())));
  if (!model_bytes.empty()) std::erase_if(model, [](auto const& run) { return run.empty(); });

  std::vector<FilePlan> files;
  for (std::size_t i = 0; i < model.size(); ++i) {
    files.push_back({fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, model.size()), "model",
                     static_cast<int>(i * world / model.size()), model[i]});
  }
  Runs const state = cut_by_bytes(state_bytes, world);
  for (std::size_t r = 0; r < world; ++r) {
    files.push_back(
        {fmt::format("state-{:05}-of-{:05}.safetensors", r, world), "state", static_cast<int>(r), state[r]});
  }
  return files;
}

std::pair<std::size_t, std::size_t> state_share(std::vector<std::uint64_t> const& bytes, int rank, int size) {
  auto const mine = cut_by_bytes(bytes, static_cast<std::uint64_t>(size))[static_cast<std::size_t>(rank)];
  return mine.empty() ? std::pair<std::size_t, std::size_t>() : std::pair(mine.front(), mine.back() + 1);
}

}  // namespace duoflow::dist
