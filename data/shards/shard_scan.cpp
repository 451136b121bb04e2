#include "data/shards/shard_scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>

#include "data/error.h"
#include "data/shards/shard_layout.h"

namespace duoflow::data {
namespace {

// Small rows are read together, large ones in parts; a multiple of every number's size, so that no number is cut. Small enough that
// the second hash and the look at the numbers find the bytes in the core's own cache.
constexpr std::uint64_t kPieceBytes = std::uint64_t{512} << 10;
constexpr std::uint64_t kCheapBytes = std::uint64_t{1} << 20;

template <class Bits>
bool finite_bits(std::byte const* bytes, std::size_t count, Bits exponent) {
  // Blocks of a fixed size become vector instructions; an exponent of ones is an infinity or no number.
  std::array<Bits, 64> block;
  while (count > 0) {
    auto const part = std::min(count, sizeof(block));
    if (part < sizeof(block)) block.fill(0);
    std::memcpy(block.data(), bytes, part);
    Bits any = 0;
    for (auto const bits : block) any = static_cast<Bits>(any | static_cast<Bits>((bits & exponent) == exponent));
    if (any != 0) return false;
    bytes += part;
    count -= part;
  }
  return true;
}

bool finite(std::byte const* bytes, std::size_t count, DType dtype) {
  switch (dtype) {
    case DType::f32:
      return finite_bits<std::uint32_t>(bytes, count, 0x7f800000U);
    case DType::f16:
      return finite_bits<std::uint16_t>(bytes, count, 0x7c00U);
    case DType::bf16:
      return finite_bits<std::uint16_t>(bytes, count, 0x7f80U);
    default:
      return true;
  }
}

std::uint64_t bytes_of(DatasetIndex const& dataset) { return static_cast<std::uint64_t>(dataset.spec.rows()) * dataset.spec.row_bytes(); }

std::vector<DatasetIndex const*> raw_in_order(std::map<std::string, DatasetIndex> const& datasets) {
  std::vector<DatasetIndex const*> raw;
  for (auto const& [name, dataset] : datasets)
    if (dataset.raw && dataset.spec.rows() > 0) raw.push_back(&dataset);
  std::sort(raw.begin(), raw.end(), [](auto const* a, auto const* b) { return a->offset < b->offset; });
  return raw;
}

// Rows of one dataset as their bytes come along.
class RowHashes {
 public:
  RowHashes(DatasetSpec const& spec, ScannedRows& found) : dtype_(spec.dtype), row_bytes_(spec.row_bytes()), found_(found) {}

  void add(std::byte const* bytes, std::size_t count) {
    while (count > 0) {
      auto const part = std::min(count, row_bytes_ - in_row_);
      if (found_.first_not_finite < 0 && !finite(bytes, part, dtype_))
        found_.first_not_finite = static_cast<std::int64_t>(found_.xxh3.size());
      if (part == row_bytes_) {
        found_.xxh3.push_back(xxh3(bytes, part));
      } else {
        running_.add(bytes, part);
        in_row_ += part;
        if (in_row_ == row_bytes_) finish_row();
      }
      bytes += part;
      count -= part;
    }
  }

 private:
  void finish_row() {
    found_.xxh3.push_back(running_.value());
    running_.reset();
    in_row_ = 0;
  }

  DType dtype_;
  std::size_t row_bytes_, in_row_ = 0;
  RunningXxh3 running_;
  ScannedRows& found_;
};

}  // namespace

std::vector<Region> regions_of(std::map<std::string, DatasetIndex> const& datasets, std::uint64_t file_bytes) {
  std::vector<Region> regions;
  std::uint64_t at = 0;
  for (auto const* dataset : raw_in_order(datasets)) {
    if (dataset->offset > at) regions.push_back({at, dataset->offset - at, nullptr});
    regions.push_back({dataset->offset, bytes_of(*dataset), dataset});
    at = dataset->offset + bytes_of(*dataset);
  }
  if (file_bytes > at) regions.push_back({at, file_bytes - at, nullptr});
  return regions;
}

void require_sound(ShardInfo const& shard, std::string const& path) {
  DatasetIndex const* before = nullptr;
  for (auto const* dataset : raw_in_order(shard.datasets)) {
    auto const bytes = bytes_of(*dataset);
    if (dataset->offset > shard.bytes || bytes > shard.bytes - dataset->offset)
      throw DataError(fmt::format("{}: dataset {} ({} bytes at offset {}) would not lie in the file (it has {}), write the manifest again",
                                  path, dataset->spec.name, bytes, dataset->offset, shard.bytes));
    if (before != nullptr && before->offset + bytes_of(*before) > dataset->offset)
      throw DataError(fmt::format("{}: datasets {} and {} would share bytes from offset {}, write the manifest again", path,
                                  before->spec.name, dataset->spec.name, dataset->offset));
    before = dataset;
  }
}

ShardScan scan_shard(FileDescriptor const& file, std::map<std::string, DatasetIndex> const& datasets,
                     std::function<void(std::uint64_t)> const& on_bytes) {
  ShardScan scan;
  scan.bytes = file.size();
  RunningXxh3 whole, rest;
  std::vector<std::byte> buffer;
  for (auto const& region : regions_of(datasets, scan.bytes)) {
    std::unique_ptr<RowHashes> rows;
    if (region.dataset != nullptr) rows = std::make_unique<RowHashes>(region.dataset->spec, scan.rows[region.dataset->spec.name]);
    for (std::uint64_t at = 0; at < region.bytes; at += kPieceBytes) {
      auto const wanted = std::min(kPieceBytes, region.bytes - at);
      buffer.resize(std::max<std::size_t>(buffer.size(), wanted));
      auto const got = file.read_at(region.begin + at, buffer.data(), wanted);
      whole.add(buffer.data(), got);
      if (rows)
        rows->add(buffer.data(), got);
      else
        rest.add(buffer.data(), got);
      if (on_bytes) on_bytes(got);
      if (got < wanted) break;
    }
  }
  scan.xxh3 = hex16(whole.value());
  scan.rest_xxh3 = hex16(rest.value());
  return scan;
}

ScannedRows scan_library_rows(DatasetSpec const& spec, LibraryRows& library) {
  ScannedRows found;
  RowHashes hashes(spec, found);
  auto const row_bytes = spec.row_bytes();
  auto const run = std::max<std::int64_t>(1, static_cast<std::int64_t>(kPieceBytes / row_bytes));
  std::vector<std::byte> buffer;
  for (std::int64_t first = 0; first < spec.rows(); first += run) {
    auto const rows = std::min(run, spec.rows() - first);
    buffer.resize(static_cast<std::size_t>(rows) * row_bytes);
    library.read(spec, first, rows, buffer.data());
    hashes.add(buffer.data(), buffer.size());
  }
  return found;
}

bool rest_is_cheap(ShardInfo const& shard) {
  std::uint64_t bytes = shard.bytes;
  for (auto const& [name, dataset] : shard.datasets)
    if (dataset.raw) bytes -= bytes_of(dataset);
  return !shard.rest_xxh3.empty() && bytes <= kCheapBytes;
}

std::string hash_rest(FileDescriptor const& file, ShardInfo const& shard) {
  RunningXxh3 rest;
  std::vector<std::byte> buffer;
  for (auto const& region : regions_of(shard.datasets, shard.bytes)) {
    if (region.dataset != nullptr) continue;
    buffer.resize(std::max<std::size_t>(buffer.size(), region.bytes));
    rest.add(buffer.data(), file.read_at(region.begin, buffer.data(), region.bytes));
  }
  return hex16(rest.value());
}

}  // namespace duoflow::data
