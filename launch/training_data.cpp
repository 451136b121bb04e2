#include "launch/training_data.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "data/error.h"

namespace duoflow::launch {
namespace {

data::Allocate pinned_memory() {
  return [](std::size_t bytes) {
    auto tensor =
        at::empty({static_cast<std::int64_t>(bytes)}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
    auto* data = static_cast<std::byte*>(tensor.data_ptr());
    return std::shared_ptr<std::byte>(data, [tensor](std::byte*) {});
  };
}

bool power_of_two(std::int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

void cut_into_shards(BatchPlan& plan, TrainingConfig const& config, std::int64_t shards, int rank, int size) {
  std::string const what = fmt::format("dist.reproducible with dist.virtual_shards = {} on {} ranks: ", shards, size);
  if (!power_of_two(shards) || !power_of_two(size) || size > shards)
    throw ConfigError(what +
                      "the sums follow a binary tree over the shards, so ranks and shards are powers of two and there "
                      "are at least as many shards as ranks; change one of them");
  if (config.global_batch_size == 0)
    throw ConfigError(
        what + "training.global_batch_size is not set, so the batch would change with the number of ranks; set it");
  auto const per_shard = plan.global_batch / shards;
  if (plan.global_batch % shards != 0)
    throw ConfigError(
        fmt::format("{}training.global_batch_size = {} is not a multiple of the shards; change one of them", what,
                    plan.global_batch));
  if (per_shard > config.batch_size_per_gpu)
    throw ConfigError(
        fmt::format("{}a shard has {} samples, more than training.batch_size_per_gpu = {}; raise one of "
                    "dist.virtual_shards and training.batch_size_per_gpu",
                    what, per_shard, config.batch_size_per_gpu));
  plan.shards = shards;
  plan.first_shard = rank * shards / size;
  plan.micro_steps = shards / size;
  plan.micro_batch = per_shard;
}

}  // namespace

BatchPlan plan_batches(TrainingConfig const& config, DistConfig const& dist, int rank, int size) {
  BatchPlan plan;
  plan.global_batch = config.global_batch_size > 0 ? config.global_batch_size
                                                   : config.batch_size_per_gpu * size * config.grad_accum_steps;
  if (plan.global_batch < size)
    throw ConfigError(fmt::format(
        "training.global_batch_size = {} is smaller than the number of ranks, {} (a rank would have nothing to do); "
        "raise it or start fewer ranks",
        plan.global_batch, size));
  auto const [first, samples] = data::rank_block(plan.global_batch, rank, size);
  plan.first = first;
  plan.samples = samples;
  plan.micro_steps = (samples + config.batch_size_per_gpu - 1) / config.batch_size_per_gpu;
  plan.micro_batch = (samples + plan.micro_steps - 1) / plan.micro_steps;
  if (dist.reproducible) cut_into_shards(plan, config, dist.virtual_shards, rank, size);
  return plan;
}

TrainingData::TrainingData(std::vector<DataFolder> const& folders, Config const& config, int rank, int size,
                           std::int64_t start_position, bool pin_memory)
    : plan_(plan_batches(config.training, config.dist, rank, size)), skipped_(skipped_positions(config)) {
  for (auto const& folder : folders) {
    folders_.push_back(open_training_folder(folder.path, config));
    samples_ += folders_.back().samples;
  }
  if (samples_ < static_cast<std::uint64_t>(size))
    throw data::DataError(
        fmt::format("{}: {} samples for {} ranks (every rank needs at least one); start fewer ranks, make more "
                    "data or exclude fewer lights",
                    joined_paths(folders), samples_, size));
  auto const mixture = mixture_of(folders, folders_);
  fingerprint_ = fingerprint_of(folders, folders_, mixture.get());
  statistics_ = mixed_statistics(folders_, mixture.get());
  order_ = described_order(folders_, mixture.get(), config);
  source_ = make_training_source(folders_, mixture, config);
  data::LoaderOptions options;
  options.threads = config.data.threads;
  options.slots = static_cast<int>(2 * plan_.micro_steps + 2);  // this step's, the last step's on CUDA, two ahead
  if (pin_memory) options.allocate = pinned_memory();
  auto const start = skipped_.kept_before(static_cast<std::uint64_t>(start_position));
  auto schedule = [plan = plan_, start](std::uint64_t number) {
    auto const step = static_cast<std::int64_t>(number) / plan.micro_steps;  // since the start or the resume
    auto const micro = static_cast<std::int64_t>(number) % plan.micro_steps;
    auto const offset = micro * plan.micro_batch;
    return std::pair(start + static_cast<std::uint64_t>(step * plan.global_batch + plan.first + offset),
                     std::min(plan.micro_batch, plan.samples - offset));
  };
  loader_ = std::make_unique<data::Loader>(source_, schedule, plan_.micro_batch, options);
}

TrainingData::~TrainingData() = default;
data::Batch TrainingData::next() { return loader_->next(); }
void TrainingData::release(data::Batch const& batch) { loader_->release(batch); }
double TrainingData::waited_ms() const { return loader_->waited_ms(); }

std::int64_t TrainingData::position_after_step(std::int64_t position) const {
  auto const last =
      skipped_.kept_before(static_cast<std::uint64_t>(position)) + static_cast<std::uint64_t>(plan_.global_batch) - 1;
  return static_cast<std::int64_t>(skipped_.position(last)) + 1;
}

}  // namespace duoflow::launch
