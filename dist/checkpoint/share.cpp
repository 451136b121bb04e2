#include "dist/checkpoint/share.h"

#include <numeric>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "dist/checkpoint/file_io.h"
#include "dist/checkpoint/folders.h"
#include "dist/checkpoint/manifest.h"
#include "dist/checkpoint/safetensors_file.h"
#include "dist/checkpoint/xxh3.h"
#include "dist/error.h"

namespace duoflow::dist {
namespace {

using RecordJson = nlohmann::ordered_json;

constexpr std::int64_t copy_alignment = 64;

// Checks the tensors of one part, adds names, types and shapes to the hash, returns their sizes.
std::vector<std::uint64_t> describe_part(std::vector<NamedTensor> const& tensors, std::string const& part,
                                         Xxh3& hash) {
  std::vector<std::uint64_t> bytes;
  std::set<std::string> names;
  for (NamedTensor const& named : tensors) {
    TensorEntry const entry = describe_tensor(named, part);
    if (!names.insert(entry.name).second) {
      throw CheckpointError(fmt::format("{}: tensor \"{}\" is there twice, give each its own name", part, entry.name));
    }
    hash.update(RecordJson{part, entry.name, entry.dtype, entry.shape}.dump());
    bytes.push_back(entry.bytes);
  }
  return bytes;
}

void check_request(CheckpointState const& state, CheckpointWriterOptions const& options) {
  if (options.keep_last < 1 || options.keep_every < 0 || options.max_file_bytes < 1) {
    throw CheckpointError(fmt::format("keep_last {} and max_file_bytes {} must be at least 1, keep_every {} at least 0",
                                      options.keep_last, options.max_file_bytes, options.keep_every));
  }
  if (!RecordJson::parse(state.counters_json, nullptr, /*allow_exceptions=*/false).is_object()) {
    throw CheckpointError("the counters are not a JSON object: " + state.counters_json);
  }
  step_folder_name(state.step);
}

std::vector<NamedTensor> const& part_of(CheckpointState const& state, FilePlan const& plan) {
  return plan.part == "model" ? state.model : state.state;
}

std::int64_t placed(std::int64_t bytes) { return (bytes + copy_alignment - 1) / copy_alignment * copy_alignment; }

std::vector<NamedTensor> shapes_of(std::vector<NamedTensor> const& tensors) {
  std::vector<NamedTensor> shapes;
  for (auto const& [name, tensor] : tensors) shapes.push_back({name, at::empty(tensor.sizes(), tensor.options().device(at::kMeta))});
  return shapes;
}

}  // namespace

Share plan_share(CheckpointState const& state, CheckpointWriterOptions const& options, int rank, int size) {
  check_request(state, options);
  Xxh3 hash;
  auto const model = describe_part(state.model, "model", hash), rest = describe_part(state.state, "state", hash);
  Share share;
  for (auto& plan : plan_files(model, rest, size, static_cast<std::uint64_t>(options.max_file_bytes))) {
    for (auto const index : plan.tensors) share.bytes += (plan.part == "model" ? model : rest)[index];
    if (plan.rank == rank) share.files.push_back(std::move(plan));
  }
  share.description =
      RecordJson{{"step", state.step}, {"tensors", model.size() + rest.size()}, {"digest", hash.digest()}}.dump();
  return share;
}

std::string write_share(Share const& share, CheckpointState const& state, std::string const& folder,
                        std::function<bool()> const& stopping) {
  RecordJson files = RecordJson::array();
  for (FilePlan const& plan : share.files) {
    if (stopping()) throw CheckpointError(folder + ": the writing was given up (the program ends)");
    std::vector<NamedTensor> tensors;
    for (std::size_t const index : plan.tensors) tensors.push_back(part_of(state, plan)[index]);
    std::string hash;
    std::string const path = folder + "/" + plan.name;
    // "pt" is what other readers of the format look for.
    auto const entries = write_safetensors(path, tensors, {{"format", "pt"}}, &hash);
    RecordJson items = RecordJson::array();
    for (TensorEntry const& entry : entries) items.push_back(to_json(entry));
    files.push_back({{"name", plan.name},
                     {"bytes", InputFile(path).size()},
                     {"xxh3", hash},
                     {"part", plan.part},
                     {"tensors", items}});
  }
  sync_folder(folder);
  return files.dump();
}

CheckpointState HostCopy::copy(CheckpointState const& state, Share const& share) {
  std::int64_t needed = 0;
  for (FilePlan const& plan : share.files)
    for (auto const index : plan.tensors)
      needed += placed(static_cast<std::int64_t>(part_of(state, plan)[index].tensor.nbytes()));
  if (!memory_.defined() || memory_.numel() < needed)
    memory_ = at::empty({needed}, at::TensorOptions(at::kByte).pinned_memory(pinned_));
  CheckpointState copies{state.step, shapes_of(state.model), shapes_of(state.state), state.counters_json,
                         state.config_yaml};
  std::int64_t offset = 0;
  at::Tensor from_device;
  for (FilePlan const& plan : share.files) {
    auto& list = plan.part == "model" ? copies.model : copies.state;
    for (auto const index : plan.tensors) {
      auto const& tensor = part_of(state, plan)[index].tensor;
      auto const bytes = static_cast<std::int64_t>(tensor.nbytes());
      auto const copy = memory_.narrow(0, offset, bytes).view(tensor.scalar_type()).view(tensor.sizes());
      copy.copy_(tensor.detach(), /*non_blocking=*/true);
      if (tensor.is_cuda()) from_device = tensor;
      list[index].tensor = copy;
      offset += placed(bytes);
    }
  }
  // The host waits, as a save that holds training does: one small blocking copy behind the others on the stream: when it is here, they are.
  if (from_device.defined()) from_device.flatten().slice(0, 0, 1).cpu();
  return copies;
}

}  // namespace duoflow::dist
