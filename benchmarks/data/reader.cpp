// What reading costs, one question a call, one line of JSON an answer (benchmarks/data/reader.py asks):
//   reader_benchmark startup DIR                              index, tables and first batch of a process
//   reader_benchmark loader  DIR threads batches batch verify the loader; verify: first_touch, always, never
//   reader_benchmark blocks  DIR threads batches batch block window   the loader in block-shuffled order, both in MiB
//   reader_benchmark raw     DIR threads batches batch        the same bytes in the same order by pread alone
//   reader_benchmark direct  DIR threads batches batch        as raw, the large rows past the page cache (O_DIRECT)
//   reader_benchmark uring   DIR threads batches batch        as raw, by io_uring: each thread keeps 16 reads under way
//   reader_benchmark consume DIR threads batches batch GB_s   a consumer that takes that many bytes a second
//   reader_benchmark memory  DIR threads batches batch        resident memory along the way
//   reader_benchmark verify  DIR threads                      every byte of the folder hashed, as `duoflow verify` does it
//   reader_benchmark resume  DIR threads position             from a process's start to its first batch at that position

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "data/loading/loader.h"
#include "data/order/near_pairs.h"
#include "data/shards/shard_index.h"
#include "benchmarks/data/uring.h"

namespace duoflow::data {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::uint64_t kSeed = 777;
constexpr int kSlots = 4;  // as training has: two steps' batches in use, two ahead

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double cpu_seconds() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  auto const seconds = [](timeval const& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double resident_mib() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

struct Folder {
  std::shared_ptr<ShardIndex const> index;
  std::shared_ptr<PairSet const> pairs;
  Sampler sampler;
  explicit Folder(std::string const& directory, double block_mib = 0, double window_mib = 0)
      : index(std::make_shared<ShardIndex const>(directory)),
        pairs(std::make_shared<PairSet const>(load_pairs(*index))),
        sampler(kSeed, pairs->pairs.size(), order(block_mib, window_mib)) {}

  // As training makes it of data.shuffle_block_mib and data.shuffle_window_mib.
  SamplerOptions order(double block_mib, double window_mib) const {
    if (block_mib == 0) return {};
    double bytes = 0;
    for (auto const& shard : index->shards()) bytes += static_cast<double>(shard.bytes);
    auto const block = block_mib * (1 << 20) / bytes * static_cast<double>(pairs->pairs.size());
    return {.blocks = {static_cast<std::uint64_t>(std::max(1.0, block)), static_cast<std::uint64_t>(std::max(1.0, window_mib / block_mib))},
            .neighbours = std::make_shared<std::vector<std::uint64_t> const>(near_pairs(pairs->pairs))};
  }

  std::shared_ptr<BatchSource const> source(Verify verify) const {
    return make_pair_source(index, pairs, std::make_shared<RawReader const>(index, verify), sampler, kSeed, 0);
  }
};

// Bytes of a sample that come from the disk: what is filled in or computed is left out.
std::size_t sample_bytes(BatchSource const& source) {
  std::size_t bytes = 0;
  for (auto const& field : source.fields())
    if (field.name != "pair" && field.name != "target_alpha") bytes += field.bytes_per_sample();
  return bytes;
}

Schedule in_order(std::int64_t batch, std::uint64_t first = 0) {
  return [batch, first](std::uint64_t number) { return std::pair(first + number * static_cast<std::uint64_t>(batch), batch); };
}

struct Arguments {
  std::string directory;
  int threads = 1;
  std::uint64_t batches = 0;
  std::int64_t batch = 1;
};

void print_rate(char const* what, double bytes, double seconds, double cpu) {
  fmt::print("{{\"what\":\"{}\",\"gb_s\":{:.4f},\"cpu_s_per_gb\":{:.4f}}}\n", what, 1e-9 * bytes / seconds, 1e9 * cpu / bytes);
}

void startup(std::string const& directory) {
  auto const start = Clock::now();
  auto const index = std::make_shared<ShardIndex const>(directory);
  auto const indexed = seconds_since(start);
  auto const pairs = std::make_shared<PairSet const>(load_pairs(*index));
  auto const loaded = seconds_since(start);
  auto const source =
      make_pair_source(index, pairs, std::make_shared<RawReader const>(index), Sampler(kSeed, pairs->pairs.size()), kSeed, 0);
  Loader loader(source, in_order(1), 1, {.threads = 1, .slots = kSlots, .allocate = {}});
  loader.release(loader.next());
  fmt::print(
      "{{\"what\":\"startup\",\"shards\":{},\"rows\":{},\"pairs\":{},\"index_ms\":{:.1f},\"tables_ms\":{:.1f},\"first_batch_ms\":{:.1f}}}"
      "\n",
      index->shards().size(), pairs->rows.size(), pairs->pairs.size(), 1e3 * indexed, 1e3 * (loaded - indexed),
      1e3 * (seconds_since(start) - loaded));
}

void run_loader(Arguments const& a, Verify verify, Folder const& folder) {
  auto const source = folder.source(verify);
  auto const start = Clock::now();
  auto const cpu = cpu_seconds();
  Loader loader(source, in_order(a.batch), a.batch, {.threads = a.threads, .slots = kSlots, .allocate = {}});
  for (std::uint64_t i = 0; i < a.batches; ++i) loader.release(loader.next());
  print_rate("loader", static_cast<double>(sample_bytes(*source)) * static_cast<double>(a.batch) * static_cast<double>(a.batches),
             seconds_since(start), cpu_seconds() - cpu);
}

constexpr std::size_t kPage = 4096;
std::size_t round_up(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

struct Files {  // of each shard; large: as asked for, small: through the page cache
  std::vector<int> large, small;
  Files(Folder const& folder, int flags) {
    for (auto const& shard : folder.index->shards()) {
      auto const path = folder.index->directory() + "/" + shard.file;
      large.push_back(::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags));
      small.push_back(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    }
  }
};

struct Range {
  int fd;
  std::uint64_t offset;
  std::size_t bytes;
};

// Whole pages first, so that each of them goes to a page's start.
std::vector<Range> ranges_of(Folder const& folder, Files const& files, std::uint64_t position) {
  auto const& pair = folder.pairs->pairs[folder.sampler.index_at(position)];
  std::vector<Range> ranges;
  auto const add = [&](std::int64_t row, char const* name, std::int64_t dataset_row) {
    auto const shard = static_cast<std::size_t>(folder.pairs->rows[static_cast<std::size_t>(row)].shard);
    auto const& dataset = folder.index->shards()[shard].datasets.at(name);
    auto const bytes = dataset.spec.row_bytes();
    auto const offset = dataset.offset + static_cast<std::uint64_t>(dataset_row) * bytes;
    ranges.push_back({offset % kPage == 0 && bytes % kPage == 0 ? files.large[shard] : files.small[shard], offset, bytes});
  };
  auto const& to = folder.pairs->rows[static_cast<std::size_t>(pair.x1)];
  add(pair.x0, "latents", folder.pairs->rows[static_cast<std::size_t>(pair.x0)].row);
  add(pair.x1, "latents", to.row);
  add(pair.x1, "target_images", to.row);
  add(pair.x1, "env", to.env_row);
  for (auto const* name : {"target_c2w", "target_fxfycxcy", "world_to_norm"}) add(pair.x1, name, to.row);
  return ranges;
}

using ReadAll = std::function<void(std::function<std::vector<Range> const*(char** out)> const& next)>;

// Each thread takes sample after sample from `next` and reads its ranges one behind the other to `out`.
void by_pread(std::function<std::vector<Range> const*(char** out)> const& next) {
  char* out = nullptr;
  while (auto const* ranges = next(&out))
    for (auto const& range : *ranges) {
      if (::pread(range.fd, out, range.bytes, static_cast<off_t>(range.offset)) != static_cast<ssize_t>(range.bytes)) std::abort();
      out += range.bytes;
    }
}

void by_uring(std::function<std::vector<Range> const*(char** out)> const& next) {
  constexpr unsigned depth = 16;
  Uring ring(depth);
  char* out = nullptr;
  while (auto const* ranges = next(&out))
    for (auto const& range : *ranges) {
      if (ring.in_flight() == depth) ring.wait_for_one();
      ring.read(range.fd, range.offset, range.bytes, out);
      out += range.bytes;
    }
  while (ring.in_flight() > 0) ring.wait_for_one();
}

void raw(Arguments const& a, char const* what, int flags, ReadAll const& read_all) {
  Folder const folder(a.directory);
  Files const files(folder, flags);
  auto const bytes = sample_bytes(*folder.source(Verify::never));
  auto const samples = a.batches * static_cast<std::uint64_t>(a.batch);
  std::vector<std::vector<Range>> plan;
  for (std::uint64_t i = 0; i < samples; ++i) plan.push_back(ranges_of(folder, files, i));
  auto const ring = static_cast<std::uint64_t>(kSlots * a.batch);  // as much memory as the loader has, as the loader has it
  std::unique_ptr<char, void (*)(void*)> const memory(static_cast<char*>(std::aligned_alloc(kPage, ring * round_up(bytes))), &std::free);
  auto const start = Clock::now();
  auto const cpu = cpu_seconds();
  std::atomic<std::uint64_t> next = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < a.threads; ++t)
    threads.emplace_back([&] {
      read_all([&](char** out) -> std::vector<Range> const* {
        auto const i = next++;
        if (i >= samples) return nullptr;
        *out = memory.get() + i % ring * round_up(bytes);
        return &plan[i];
      });
    });
  threads.clear();
  print_rate(what, static_cast<double>(bytes) * static_cast<double>(samples), seconds_since(start), cpu_seconds() - cpu);
}

void consume(Arguments const& a, double gb_s) {
  Folder const folder(a.directory);
  auto const source = folder.source(Verify::first_touch);
  auto const step = std::chrono::duration<double>(1e-9 * static_cast<double>(sample_bytes(*source)) * static_cast<double>(a.batch) / gb_s);
  Loader loader(source, in_order(a.batch), a.batch, {.threads = a.threads, .slots = kSlots, .allocate = {}});
  loader.release(loader.next());
  auto const start = Clock::now();
  auto const cpu = cpu_seconds();
  double waited = 0;
  for (std::uint64_t i = 0; i < a.batches; ++i) {
    auto const batch = loader.next();
    waited += 1e-3 * loader.waited_ms();
    std::this_thread::sleep_for(step);
    loader.release(batch);
  }
  auto const seconds = seconds_since(start);
  fmt::print("{{\"what\":\"consume\",\"step_ms\":{:.3f},\"wait_percent\":{:.4f},\"cores\":{:.4f}}}\n", 1e3 * step.count(),
             100 * waited / seconds, (cpu_seconds() - cpu) / seconds);
}

void memory(Arguments const& a) {
  Folder const folder(a.directory);
  Loader loader(folder.source(Verify::first_touch), in_order(a.batch), a.batch, {.threads = a.threads, .slots = kSlots, .allocate = {}});
  std::vector<double> seen;
  for (std::uint64_t i = 0; i < a.batches; ++i) {
    loader.release(loader.next());
    if ((i + 1) % (a.batches / 10) == 0) seen.push_back(resident_mib());
  }
  fmt::print("{{\"what\":\"memory\",\"batches\":{},\"resident_mib\":[{:.1f}]}}\n", a.batches, fmt::join(seen, ","));
}

void verify(Arguments const& a) {
  auto const start = Clock::now();
  auto const cpu = cpu_seconds();
  std::uint64_t bytes = 0;
  auto const problems =
      verify_folder(a.directory, {.threads = a.threads, .progress = [&](std::uint64_t done, std::uint64_t) { bytes = done; }});
  if (!problems.empty()) throw std::runtime_error("the folder is damaged: " + problems.front());
  print_rate("verify", static_cast<double>(bytes), seconds_since(start), cpu_seconds() - cpu);
}

void resume(Arguments const& a, std::uint64_t position) {
  auto const start = Clock::now();
  Folder const folder(a.directory);
  auto const opened = seconds_since(start);
  Loader loader(folder.source(Verify::first_touch), in_order(1, position), 1, {.threads = a.threads, .slots = kSlots, .allocate = {}});
  loader.release(loader.next());
  fmt::print("{{\"what\":\"resume\",\"position\":{},\"first_batch_ms\":{:.3f}}}\n", position, 1e3 * (seconds_since(start) - opened));
}

Verify verify_of(std::string const& word) {
  if (word == "first_touch") return Verify::first_touch;
  if (word == "always") return Verify::always;
  if (word == "never") return Verify::never;
  throw std::invalid_argument("verify is first_touch, always or never");
}

void run(std::vector<std::string> const& words) {
  auto const& what = words.at(0);
  if (what == "startup") return startup(words.at(1));
  Arguments arguments{words.at(1), std::stoi(words.at(2)), 0, 1};
  if (what == "verify") return verify(arguments);
  arguments.batches = std::stoull(words.at(3));
  if (what == "resume") return resume(arguments, arguments.batches);
  arguments.batch = std::stoll(words.at(4));
  if (what == "loader") return run_loader(arguments, verify_of(words.at(5)), Folder(arguments.directory));
  if (what == "blocks")
    return run_loader(arguments, Verify::first_touch, Folder(arguments.directory, std::stod(words.at(5)), std::stod(words.at(6))));
  if (what == "raw") return raw(arguments, "raw", 0, by_pread);
  if (what == "direct") return raw(arguments, "direct", O_DIRECT, by_pread);
  if (what == "uring") return raw(arguments, "uring", 0, by_uring);
  if (what == "consume") return consume(arguments, std::stod(words.at(5)));
  if (what == "memory") return memory(arguments);
  throw std::invalid_argument("unknown question " + what);
}

}  // namespace
}  // namespace duoflow::data

int main(int count, char** words) try {
  duoflow::data::run({words + 1, words + count});
  return 0;
} catch (std::exception const& error) {
  std::fprintf(stderr, "reader_benchmark: %s (see the top of benchmarks/data/reader.cpp for its arguments)\n", error.what());
  return 1;
}
