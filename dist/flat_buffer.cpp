#include "dist/flat_buffer.h"

#include <malloc.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <set>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/variable.h>
#include <xxhash.h>

#include "dist/error.h"

namespace duoflow::dist {
namespace {

constexpr std::int64_t alignment = 16;  // floats: 64 bytes

std::string shape_text(std::vector<std::int64_t> const& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

void check_parameters(std::vector<TrainableParameter> const& parameters) {
  std::set<std::string> names;
  std::map<void const*, std::string> owners;
  for (auto const& [name, tensor, group, section] : parameters) {
    if (section < 0 || section > 31) {
      throw std::invalid_argument(fmt::format("parameter {} is in section {} (0 to 31 are there)", name, section));
    }
    if (!tensor.defined() || !tensor.is_leaf() || !tensor.requires_grad()) {
      throw std::invalid_argument(fmt::format("parameter {} is not a leaf that requires a gradient", name));
    }
    if (tensor.scalar_type() != at::kFloat) {
      throw std::invalid_argument(fmt::format("parameter {} is {} (masters are Float), convert it before training",
                                              name, c10::toString(tensor.scalar_type())));
    }
    if (tensor.device() != parameters.front().tensor.device()) {
      throw std::invalid_argument(fmt::format("parameter {} is on {}, {} on {} (all must be on one device)", name,
                                              tensor.device().str(), parameters.front().name,
                                              parameters.front().tensor.device().str()));
    }
    if (!names.insert(name).second) {
      throw std::invalid_argument(fmt::format("two parameters are named {}, names must differ", name));
    }
    auto const [owner, is_new] = owners.emplace(tensor.unsafeGetTensorImpl(), name);
    if (!is_new) {
      throw std::invalid_argument(fmt::format(
          "{} and {} are the same tensor (its gradient would count twice), give it once", owner->second, name));
    }
  }
}

// Reverse forward order within a group, the groups one after the other: matrices in the order in which the backward
// completes them, then those of vectors alone. Runs of one group as they fall in reverse order would be hundreds (norm weights lie between matrices), and every run
// is an optimizer call. The price: the vectors (norms, biases) are complete only when the backward ends, so the last
// bucket starts late; it is small.
std::vector<TrainableParameter> in_buffer_order(std::vector<TrainableParameter> parameters) {
  std::reverse(parameters.begin(), parameters.end());
  struct Place {
    bool vectors = true;
    std::size_t last = 0;  // where its last gradient comes in the backward
  };
  std::map<int, Place> places;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    auto& place = places[parameters[i].group];
    place.vectors = place.vectors && parameters[i].tensor.dim() == 1;
    place.last = i;
  }
  std::stable_sort(parameters.begin(), parameters.end(), [&](auto const& a, auto const& b) {
    auto const key = [&](int group) { return std::tuple(places.at(group).vectors, places.at(group).last, group); };
    return key(a.group) < key(b.group);
  });
  return parameters;
}

// What must be the same on every rank, one line a parameter.
std::vector<std::string> layout_lines(FlatBuffer const& buffer) {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < buffer.ranges().size(); ++i) {
    FlatRange const& range = buffer.ranges()[i];
    lines.push_back(fmt::format("{} {} {} group {}", range.name, shape_text(range.shape),
                                c10::toString(buffer.tensors()[i].scalar_type()), range.group));
  }
  return lines;
}

std::string first_difference(std::string const& of_rank_0, std::string const& other) {
  auto const line_end = [](std::string const& text, std::size_t begin) {
    return std::min(text.find('\n', begin), text.size());
  };
  std::size_t begin = 0;
  for (int index = 0; begin < std::max(of_rank_0.size(), other.size()); ++index) {
    std::string const a =
        begin < of_rank_0.size() ? of_rank_0.substr(begin, line_end(of_rank_0, begin) - begin) : "nothing";
    std::string const b = begin < other.size() ? other.substr(begin, line_end(other, begin) - begin) : "nothing";
    if (a != b) {
      return fmt::format("parameter {} of the flat buffer is \"{}\" on rank 0 and \"{}\"", index, a, b);
    }
    begin += a.size() + 1;  // equal so far, so both texts have the next line at the same place
  }
  return "";
}

void check_layout(FlatLayout const& layout) {
  if (layout.bucket_mib <= 0 || layout.first_bucket_mib <= 0 || layout.slices < 1) {
    throw std::invalid_argument(fmt::format("bucket sizes are {} and {} MiB and slices {}, they must be positive",
                                            layout.first_bucket_mib, layout.bucket_mib, layout.slices));
  }
}

std::int64_t round_up(std::int64_t elements, std::int64_t unit) { return (elements + unit - 1) / unit * unit; }

}  // namespace

FlatBuffer::FlatBuffer(std::vector<TrainableParameter> forward_order, FlatLayout const& layout)
    : slices_(layout.slices) {
  check_parameters(forward_order);
  check_layout(layout);
  std::vector<TrainableParameter> const ordered = in_buffer_order(std::move(forward_order));
  std::int64_t offset = 0;
  double limit = 0;
  for (std::size_t i = 0; i < ordered.size(); ++i) {
    auto const& [name, tensor, group, section] = ordered[i];
    // A bucket is closed when it has reached its size; its padding belongs to its last parameter's run.
    if (buckets_.empty() || static_cast<double>(offset - buckets_.back().begin) * sizeof(float) >= limit) {
      limit = (buckets_.empty() ? layout.first_bucket_mib : layout.bucket_mib) * 1024 * 1024;
      buckets_.push_back({offset, offset, i, 0});
    }
    BucketRange& bucket = buckets_.back();
    ++bucket.parameters;
    ranges_.push_back(FlatRange{name, offset, tensor.numel(), tensor.sizes().vec(), group});
    std::int64_t end = offset + round_up(tensor.numel(), alignment);
    bool const closes = i + 1 == ordered.size() || static_cast<double>(end - bucket.begin) * sizeof(float) >= limit;
    if (closes) end = bucket.begin + round_up(end - bucket.begin, alignment * slices_);
    bucket.end = end;
    if (group_runs_.empty() || group_runs_.back().group != group || group_runs_.back().section != section) {
      group_runs_.push_back(GroupRun{group, offset, end, section});
    }
    group_runs_.back().end = end;
    offset = end;
  }
  at::NoGradGuard no_grad;
  at::Device const device = ordered.empty() ? at::Device(at::kCPU) : ordered.front().tensor.device();
  parameters_ = at::zeros({offset}, at::TensorOptions(at::kFloat).device(device));
  auto const view_of = [](at::Tensor const& flat, FlatRange const& range) {
    return flat.narrow(0, range.offset, range.numel).view(range.shape);
  };
  for (std::size_t i = 0; i < ordered.size(); ++i) {
    at::Tensor tensor = ordered[i].tensor;
    at::Tensor const values = view_of(parameters_, ranges_[i]);
    values.copy_(tensor);
    tensor.set_data(values);
    tensors_.push_back(tensor);
  }
  // The parameters' former memory goes back before more is taken: the allocator would keep it, in pieces too small for
  // what comes.
  malloc_trim(0);
  gradients_ = at::zeros_like(parameters_);
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    // A defined .grad makes autograd add in place (as long as the backward does not build a graph of its own).
    tensors_[i].mutable_grad() = view_of(gradients_, ranges_[i]);
  }
}

std::int64_t FlatBuffer::size() const { return parameters_.numel(); }

std::vector<OwnedRange> owned_ranges(FlatBuffer const& buffer, int rank, int size) {
  if (buffer.slices() % size != 0 && size > 1) {
    throw std::invalid_argument(
        fmt::format("{} slices cannot be shared by {} ranks evenly, lay the buffer out in a "
                    "multiple of the ranks",
                    buffer.slices(), size));
  }
  std::vector<OwnedRange> owned;
  std::int64_t own = 0;
  for (std::size_t b = 0; b < buffer.buckets().size(); ++b) {
    BucketRange const& bucket = buffer.buckets()[b];
    std::int64_t const share = (bucket.end - bucket.begin) / size, begin = bucket.begin + rank * share;
    for (GroupRun const& run : buffer.group_runs()) {
      std::int64_t const first = std::max(begin, run.begin), last = std::min(begin + share, run.end);
      if (first < last) owned.push_back({first, own + first - begin, last - first, run.group, b, run.section});
    }
    own += share;
  }
  return owned;
}

void agree_on_parameters(Communicator const& communicator, FlatBuffer& buffer) {
  std::string const mine = fmt::format("{}", fmt::join(layout_lines(buffer), "\n"));
  // Lists are long on large models and ranks are many: compare hashes, and the lists only if those differ.
  std::string const hash = fmt::format("{:016x}", XXH3_64bits(mine.data(), mine.size()));
  auto const hashes = all_gather_strings(communicator, hash);
  if (std::any_of(hashes.begin(), hashes.end(), [&](std::string const& other) { return other != hashes.front(); })) {
    auto const lists = all_gather_strings(communicator, mine);
    for (std::size_t rank = 1; rank < lists.size(); ++rank) {
      std::string const difference = first_difference(lists.front(), lists[rank]);
      if (!difference.empty()) {
        throw PeerError(
            fmt::format("{} on rank {} (all ranks must train the same model), start all ranks with the same "
                        "configuration and program",
                        difference, rank));
      }
    }
  }
  broadcast(communicator, buffer.parameters(), 0).wait();
}

}  // namespace duoflow::dist
