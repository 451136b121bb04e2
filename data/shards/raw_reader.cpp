#include "data/shards/raw_reader.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "data/error.h"
#include "data/file.h"
#include "data/shards/shard_layout.h"
#include "data/shards/shard_scan.h"

namespace duoflow::data {
namespace {

constexpr std::size_t kHashedPiece = 256 << 10;  // half of a core's second-level cache, or less

// One bit per row: its hash has been found right by this reader. Two threads may both check a row; that is harmless.
class TouchedRows {
 public:
  explicit TouchedRows(std::int64_t rows) : words_(static_cast<std::size_t>(rows + 63) / 64) {}
  bool has(std::int64_t row) const { return (word(row).load(std::memory_order_relaxed) >> (row % 64) & 1) != 0; }
  void add(std::int64_t row) { word(row).fetch_or(std::uint64_t{1} << (row % 64), std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t>& word(std::int64_t row) { return words_[static_cast<std::size_t>(row / 64)]; }
  std::atomic<std::uint64_t> const& word(std::int64_t row) const { return words_[static_cast<std::size_t>(row / 64)]; }
  std::vector<std::atomic<std::uint64_t>> words_;
};

struct Source {
  DatasetIndex const* index = nullptr;
  std::unique_ptr<TouchedRows> touched;
};

using Descriptor = std::shared_ptr<FileDescriptor const>;  // whoever reads holds it: closing cannot pull it away

struct OpenShard {
  ShardInfo const* info = nullptr;
  std::string path;
  std::map<std::string, Source, std::less<>> datasets;
  std::mutex mutex;        // of the next two
  Descriptor file;         // null: closed (not read yet, or too many were open)
  bool as_listed = false;  // the bytes around the rows have been compared with the manifest
  std::once_flag library_opened;
  std::unique_ptr<LibraryRows> library;  // only where some dataset needs it
};

// A quarter of the files that this process may have open; more may be open when the folder has more shards and the system allows it.
std::size_t most_open_files(std::size_t shards) {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 64;
  if (limit.rlim_cur / 4 < shards && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 4 * shards);
    ::setrlimit(RLIMIT_NOFILE, &limit);
    ::getrlimit(RLIMIT_NOFILE, &limit);
  }
  return std::max<std::size_t>(1, limit.rlim_cur / 4);
}

// Once per folder and process.
void say_slow_path(std::string const& folder, OpenShard const& shard, std::string const& dataset) {
  static std::mutex mutex;
  static std::set<std::string> said;
  {
    std::lock_guard const held(mutex);
    if (!said.insert(folder).second) return;
  }
  fmt::print(stderr,
             "note: {}: dataset {} cannot be read directly ({}), so it and others like it in this folder are read through HDF5, one thread "
             "at a time; `duoflow repack` makes shards for full speed\n",
             shard.path, dataset, shard.library->obstacle(dataset));
}

}  // namespace

struct RawReader::State {
  std::shared_ptr<ShardIndex const> index;
  Verify verify;
  std::vector<std::unique_ptr<OpenShard>> shards;
  std::size_t most_open;
  mutable std::mutex open_mutex;
  mutable std::deque<OpenShard*> opened;  // oldest first; guarded by open_mutex

  State(std::shared_ptr<ShardIndex const> index_, Verify verify_)
      : index(std::move(index_)), verify(verify_), most_open(most_open_files(index->shards().size())) {
    for (auto const& info : index->shards()) {
      auto& shard = *shards.emplace_back(std::make_unique<OpenShard>());
      shard.info = &info;
      shard.path = index->directory() + "/" + info.file;
      for (auto const& [name, dataset] : info.datasets)
        shard.datasets[name] = {&dataset, std::make_unique<TouchedRows>(dataset.spec.rows())};
    }
  }

  std::pair<OpenShard&, Source&> find(std::int64_t shard, std::string const& dataset, std::int64_t first_row, std::int64_t rows) const {
    if (shard < 0 || shard >= static_cast<std::int64_t>(shards.size()))
      throw DataError(
          fmt::format("{} has no shard {} ({} shards), the index and the request disagree", index->directory(), shard, shards.size()));
    auto& open = *shards[static_cast<std::size_t>(shard)];
    auto const found = open.datasets.find(dataset);
    if (found == open.datasets.end())
      throw DataError(fmt::format("{} has no dataset {} (another kind of shard?), make the shard again", open.path, dataset));
    auto const available = found->second.index->spec.rows();
    if (first_row < 0 || rows < 0 || rows > available - first_row)
      throw DataError(fmt::format("{}: rows {} to {} of dataset {} asked for ({} rows there), a table in the shard points outside",
                                  open.path, first_row, first_row + rows, dataset, available));
    return {open, found->second};
  }

  Descriptor descriptor(OpenShard& shard) const {
    Descriptor file;
    {
      std::lock_guard const held(shard.mutex);
      if (shard.file) return shard.file;
      file = std::make_shared<FileDescriptor const>(shard.path);
      if (verify != Verify::never && !shard.as_listed) require_as_listed(shard, *file);
      shard.as_listed = true;
      shard.file = file;
    }
    if (auto* const oldest = note_opened(shard)) {
      std::lock_guard const held(oldest->mutex);
      oldest->file.reset();
    }
    return file;
  }

  OpenShard* note_opened(OpenShard& shard) const {  // returns the one to close, if any
    std::lock_guard const held(open_mutex);
    opened.push_back(&shard);
    if (opened.size() <= most_open) return nullptr;
    auto* const oldest = opened.front();
    opened.pop_front();
    return oldest;
  }

  // The rows are compared as they are read; attributes and layout stand outside them.
  void require_as_listed(OpenShard const& shard, FileDescriptor const& file) const {
    if (!rest_is_cheap(*shard.info)) return;
    auto const found = hash_rest(file, *shard.info);
    if (found != shard.info->rest_xxh3)
      throw DataError(
          fmt::format("{} is altered outside its rows (HDF5 metadata, attributes or padding; xxh3 {} expected, {} found), or it "
                      "was written anew after the manifest; restore it or make the folder again",
                      shard.path, shard.info->rest_xxh3, found));
  }

  void fetch(OpenShard& shard, DatasetIndex const& dataset, std::int64_t row, std::size_t begin, std::size_t bytes,
             void* destination) const {
    auto const offset = dataset.offset + static_cast<std::uint64_t>(row) * dataset.spec.row_bytes() + begin;
    std::size_t got = 0;
    try {
      got = descriptor(shard)->read_at(offset, destination, bytes);
    } catch (std::system_error const& error) {
      throw DataError(fmt::format("{}: reading dataset {} row {} at offset {} failed ({}), check the disk", shard.path, dataset.spec.name,
                                  row, offset, error.what()));
    }
    if (got != bytes)
      throw DataError(
          fmt::format("{} ends inside dataset {} row {} ({} bytes expected at offset {}, {} found: the file was cut short), "
                      "restore it or make it again",
                      shard.path, dataset.spec.name, row, bytes, offset, got));
  }

  // The library crashes on some damaged files, so the bytes are proven good before it parses them.
  void open_library(OpenShard& shard, std::string const& dataset) const {
    if (verify != Verify::never) {
      auto const found = xxh3_of_file(shard.path);
      if (found != shard.info->xxh3)
        throw DataError(fmt::format("{} is altered (xxh3 {} expected, {} found; dataset {} was wanted), restore the file or make it again",
                                    shard.path, shard.info->xxh3, found, dataset));
    }
    shard.library = std::make_unique<LibraryRows>(shard.path);
  }

  void fetch_by_library(OpenShard& shard, DatasetIndex const& dataset, std::int64_t first_row, std::int64_t rows, void* destination) const {
    std::call_once(shard.library_opened, [&] { open_library(shard, dataset.spec.name); });
    say_slow_path(index->directory(), shard, dataset.spec.name);
    shard.library->read(dataset.spec, first_row, rows, destination);
  }

  bool must_check(Source const& source, std::int64_t row) const {
    return verify == Verify::always || (verify == Verify::first_touch && !source.touched->has(row));
  }

  // Of the row, read in pieces that are still in the core's cache when they are hashed.
  std::uint64_t fetch_hashed(OpenShard& shard, DatasetIndex const& dataset, std::int64_t row, std::byte* destination) const {
    auto const row_bytes = dataset.spec.row_bytes();
    thread_local RunningXxh3 hash;
    hash.reset();
    // Else the disk would be asked for one piece after the other.
    if (row_bytes > kHashedPiece) descriptor(shard)->will_read(dataset.offset + static_cast<std::uint64_t>(row) * row_bytes, row_bytes);
    for (std::size_t begin = 0; begin < row_bytes; begin += kHashedPiece) {
      auto const bytes = std::min(kHashedPiece, row_bytes - begin);
      fetch(shard, dataset, row, begin, bytes, destination + begin);
      hash.add(destination + begin, bytes);
    }
    return hash.value();
  }

  void fetch_rows(OpenShard& shard, Source const& source, std::int64_t first_row, std::int64_t rows, std::byte* destination) const {
    auto const row_bytes = source.index->spec.row_bytes();
    for (std::int64_t row = first_row, end = first_row + rows; row < end;) {
      auto* const to = destination + static_cast<std::size_t>(row - first_row) * row_bytes;
      auto unchecked = row;
      while (unchecked < end && !must_check(source, unchecked)) ++unchecked;
      if (unchecked > row)
        fetch(shard, *source.index, row, 0, row_bytes * static_cast<std::size_t>(unchecked - row), to);
      else
        check(shard, source, unchecked++, fetch_hashed(shard, *source.index, row, to));
      row = unchecked;
    }
  }

  void check(OpenShard const& shard, Source const& source, std::int64_t row, std::uint64_t found) const {
    auto const& dataset = *source.index;
    auto const row_bytes = dataset.spec.row_bytes();
    auto const expected = dataset.row_xxh3[static_cast<std::size_t>(row)];
    if (found != expected)
      throw DataError(fmt::format(
          "{}: dataset {} row {} at offset {} is altered (xxh3 {} expected, {} found), restore the file or make "
          "it again",
          shard.path, dataset.spec.name, row, dataset.offset + static_cast<std::uint64_t>(row) * row_bytes, hex16(expected), hex16(found)));
    source.touched->add(row);
  }
};

RawReader::RawReader(std::shared_ptr<ShardIndex const> index, Verify verify) : state_(std::make_unique<State>(std::move(index), verify)) {}

RawReader::~RawReader() = default;

void RawReader::read(std::int64_t shard, std::string const& dataset, std::int64_t row, void* destination) const {
  read_rows(shard, dataset, row, 1, destination);
}

void RawReader::read_rows(std::int64_t shard_number, std::string const& dataset, std::int64_t first_row, std::int64_t rows,
                          void* destination) const {
  auto const [shard, source] = state_->find(shard_number, dataset, first_row, rows);
  if (rows == 0) return;
  auto* bytes = static_cast<std::byte*>(destination);
  if (source.index->raw) return state_->fetch_rows(shard, source, first_row, rows, bytes);
  state_->fetch_by_library(shard, *source.index, first_row, rows, destination);
  auto const row_bytes = source.index->spec.row_bytes();
  for (std::int64_t row = first_row; row < first_row + rows; ++row, bytes += row_bytes)
    if (state_->must_check(source, row)) state_->check(shard, source, row, xxh3(bytes, row_bytes));
}

void RawReader::read_part(std::int64_t shard_number, std::string const& dataset, std::int64_t row, std::size_t begin, std::size_t bytes,
                          void* destination) const {
  auto const [shard, source] = state_->find(shard_number, dataset, row, 1);
  auto const row_bytes = source.index->spec.row_bytes();
  if (begin > row_bytes || bytes > row_bytes - begin)
    throw DataError(fmt::format("{}: bytes {} to {} of a row of dataset {} asked for ({} bytes a row), the index and the request disagree",
                                shard.path, begin, begin + bytes, dataset, row_bytes));
  if (source.index->raw && !state_->must_check(source, row)) {
    state_->fetch(shard, *source.index, row, begin, bytes, destination);
    return;
  }
  thread_local std::vector<std::byte> whole;  // grows to the largest row once per thread
  whole.resize(std::max(whole.size(), row_bytes));
  read_rows(shard_number, dataset, row, 1, whole.data());
  std::memcpy(destination, whole.data() + begin, bytes);
}

}  // namespace duoflow::data
