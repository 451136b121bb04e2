// What a checkpoint of one rank costs, against the simplest thing that moves the same bytes.
//
//   build/checkpoint_times DIR [--mib 1024] [--repeats 5]
//
// A state as training has it (weights and two moments in one flat tensor each, cut into tensors of a transformer's
// sizes): milliseconds that begin() holds the caller against one memcpy of the bytes into memory that is there; write
// throughput from begin() to durable against write() + fsync() of the same bytes in 1 MiB pieces (what
// `dd bs=1M conv=fsync` does); read and verify against read() of the same file from a dropped cache. In turns; prints
// medians and the ratio of each pair.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "dist/checkpoint/background_writer.h"
#include "dist/checkpoint/file_io.h"

namespace duoflow::dist {
namespace {

double ms_of(std::function<void()> const& work) {
  auto const start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Blocks of 12 d^2 numbers, d = 768: qkv, projection, MLP.
CheckpointState state_of(at::Tensor const& weights, at::Tensor const& first, at::Tensor const& second) {
  CheckpointState state;
  state.counters_json = "{}";
  std::vector<std::int64_t> const sizes{3 * 768 * 768, 768 * 768, 4 * 768 * 768, 4 * 768 * 768, 768, 64};
  std::int64_t offset = 0;
  for (std::size_t i = 0; offset < weights.numel(); ++i) {
    auto const size = std::min(sizes[i % sizes.size()], weights.numel() - offset);
    auto const name = fmt::format("block.{}", i);
    state.model.push_back({name, weights.narrow(0, offset, size)});
    state.state.push_back({"exp_avg." + name, first.narrow(0, offset, size)});
    state.state.push_back({"exp_avg_sq." + name, second.narrow(0, offset, size)});
    offset += size;
  }
  return state;
}

void write_plainly(std::string const& path, char const* bytes, std::size_t count) {
  OutputFile file(path);
  for (std::size_t done = 0; done < count; done += 1 << 20) file.write(bytes + done, std::min<std::size_t>(1 << 20, count - done));
  file.finish();
}

void drop_from_cache(std::string const& path) {
  int const descriptor = ::open(path.c_str(), O_RDONLY);
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  ::close(descriptor);
}

void read_plainly(std::string const& path, std::vector<char>& memory) {
  InputFile file(path);
  for (std::size_t done = 0; done < memory.size(); done += 1 << 20)
    file.read(memory.data() + done, std::min<std::size_t>(1 << 20, memory.size() - done));
}

void report(char const* what, std::vector<double> const& ours, std::vector<double> const& plain, double mib) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < ours.size(); ++i) ratios.push_back(ours[i] / plain[i]);
  auto const [least, most] = std::minmax_element(ratios.begin(), ratios.end());
  fmt::print("{:<16} {:>9.1f} ms {:>7.0f} MiB/s   plain {:>9.1f} ms {:>7.0f} MiB/s   time ratio {:.2f} ({:.2f} .. {:.2f})\n", what,
             median(ours), 1e3 * mib / median(ours), median(plain), 1e3 * mib / median(plain), median(ratios), *least, *most);
}

int measure(std::string const& directory, std::int64_t mib, int repeats) {
  auto const numbers = mib * (1 << 20) / 12;
  auto const weights = at::randn({numbers}), first = at::randn({numbers}), second = at::rand({numbers});
  auto const state = state_of(weights, first, second);
  std::vector<char> memory(static_cast<std::size_t>(12 * numbers), 1);
  CheckpointWriterOptions options;
  options.directory = directory + "/checkpoints";
  options.keep_last = 1;
  BackgroundWriter writer({}, options);
  std::vector<double> held, copied, written, plainly, read, read_plain;
  std::string const plain = directory + "/plain";
  for (int i = -1; i < repeats; ++i) {  // the first fills the memory that is reused later
    double const copy = ms_of([&] {
      auto* to = memory.data();
      for (auto const* from : {&weights, &first, &second}) {
        std::memcpy(to, from->const_data_ptr(), from->nbytes());
        to += from->nbytes();
      }
    });
    auto step = state;
    step.step = i + 1;
    writer.begin(step);
    auto const outcome = writer.finish();
    if (!outcome.failure.empty()) throw std::runtime_error(outcome.failure);
    double const dd = ms_of([&] { write_plainly(plain, memory.data(), memory.size()); });
    for (auto const& entry : std::filesystem::directory_iterator(outcome.folder)) drop_from_cache(entry.path().string());
    double const load = ms_of([&] { read_checkpoint(outcome.folder); });
    drop_from_cache(plain);
    double const load_plain = ms_of([&] { read_plainly(plain, memory); });
    if (i < 0) continue;
    held.push_back(outcome.held_ms), copied.push_back(copy);
    written.push_back(outcome.durable_ms), plainly.push_back(dd);
    read.push_back(load), read_plain.push_back(load_plain);
  }
  auto const size = static_cast<double>(memory.size()) / (1 << 20);
  fmt::print("{:.0f} MiB, {} tensors, {} rounds\n", size, state.model.size() + state.state.size(), repeats);
  report("held / memcpy", held, copied, size);
  report("write / write", written, plainly, size);
  report("read / read", read, read_plain, size);
  std::filesystem::remove_all(options.directory);
  std::filesystem::remove(plain);
  return 0;
}

}  // namespace
}  // namespace duoflow::dist

int main(int argc, char** argv) {
  std::vector<std::string> const words(argv + 1, argv + argc);
  std::int64_t mib = 1024;
  int repeats = 5;
  for (std::size_t i = 1; i + 1 < words.size(); i += 2) {
    if (words[i] == "--mib") mib = std::stoll(words[i + 1]);
    if (words[i] == "--repeats") repeats = std::stoi(words[i + 1]);
  }
  if (words.empty() || words[0].starts_with("-")) {
    std::fputs("usage: checkpoint_times DIR [--mib 1024] [--repeats 5]\n", stderr);
    return 2;
  }
  return duoflow::dist::measure(words[0], mib, repeats);
}
