// The kernel may hand over less than was asked for, be interrupted, or fail: this program's own pread does all of it.

#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <system_error>

#include "data/file.h"
#include "data/loading/loader.h"
#include "data/shards/raw_reader.h"
#include "data/shards/shard_writer.h"
#include "sample_folders.h"

namespace {

struct Faults {
  std::atomic<std::size_t> most = ~std::size_t{0};  // bytes of one call
  std::atomic<int> interrupt_every = 0;             // 0: never
  std::atomic<int> error = 0;
  std::atomic<bool> pretend = false;  // nothing is read, the count is as if
  std::atomic<int> calls = 0;
} faults;

}  // namespace

extern "C" ssize_t pread(int fd, void* buffer, size_t bytes, off_t offset) {
  static auto* const real = reinterpret_cast<ssize_t (*)(int, void*, size_t, off_t)>(dlsym(RTLD_NEXT, "pread64"));
  int const call = ++faults.calls;
  if (faults.error != 0) {
    errno = faults.error;
    return -1;
  }
  if (faults.interrupt_every > 0 && call % faults.interrupt_every == 0) {
    errno = EINTR;
    return -1;
  }
  auto const most = std::min(bytes, faults.most.load());
  return faults.pretend ? static_cast<ssize_t>(most) : real(fd, buffer, most, offset);
}

namespace duoflow::data::testing {
namespace {

class PreadTest : public ::testing::Test {
 protected:
  PreadTest() {
    write_pair_shard(folder / "p0.h5", {});
    write_manifest(folder.path(), ShardKind::pair, {"p0.h5"});
    index = std::make_shared<ShardIndex const>(folder.path());
  }
  ~PreadTest() override { reset(); }
  static void reset() {
    faults.most = ~std::size_t{0};
    faults.interrupt_every = faults.error = faults.calls = 0;
    faults.pretend = false;
  }
  TemporaryFolder folder;
  std::shared_ptr<ShardIndex const> index;
};

TEST_F(PreadTest, ShortAndInterruptedReadsAreContinued) {
  RawReader const reader(index);
  std::vector<std::uint8_t> bytes(index->shards()[0].datasets.at("target_images").spec.row_bytes());
  faults.most = 7;
  faults.interrupt_every = 3;
  for (std::int64_t row = 0; row < 4; ++row) {
    reader.read(0, "target_images", row, bytes.data());
    for (std::size_t i = 0; i < bytes.size(); ++i)
      ASSERT_EQ(bytes[i], sample_byte(101, static_cast<std::uint64_t>(row) * bytes.size() + i));
  }
  EXPECT_GT(faults.calls, static_cast<int>(4 * bytes.size() / 7)) << "this program's pread was not the one in use";
}

TEST_F(PreadTest, AFailingDiskIsNamedWithThePlace) {
  RawReader const reader(index);
  std::vector<std::byte> bytes(index->shards()[0].datasets.at("latents").spec.row_bytes());
  reader.read(0, "latents", 0, bytes.data());
  faults.error = EIO;
  auto const offset = index->shards()[0].datasets.at("latents").offset + bytes.size();
  EXPECT_TRUE(says(data_error_of([&] { reader.read(0, "latents", 1, bytes.data()); }),
                   {"p0.h5", "dataset latents row 1", fmt::format("offset {}", offset), "Input/output error", "check the disk"}));
  auto const problems = verify_folder(folder.path());  // the manifest cannot be read either
  reset();
  ASSERT_EQ(problems.size(), 1U);
  EXPECT_TRUE(says(problems[0], {"manifest.json", "Input/output error"}));
}

// Linux moves at most 2^31 - 4096 bytes in one call.
TEST_F(PreadTest, OneReadMayBeLargerThanACallCanMove) {
  FileDescriptor const file(folder / "p0.h5");
  faults.pretend = true;
  faults.most = 0x7ffff000;
  std::byte untouched{};
  auto const bytes = (std::size_t{5} << 30) + 17;
  EXPECT_EQ(file.read_at(0, &untouched, bytes), bytes);
  EXPECT_GE(faults.calls, 3);
}

// More shards than a process may have files open: the oldest are closed on the way, never under a reader.
TEST(ManyShardsTest, AreReadWithFewFilesOpen) {
  TemporaryFolder const folder;
  std::vector<std::string> files;
  for (std::uint64_t i = 0; i < 60; ++i) {
    files.push_back(fmt::format("p{}.h5", i));
    write_pair_shard(folder / files.back(), {.salt = i});
  }
  write_manifest(folder.path(), ShardKind::pair, files);
  struct rlimit before {};
  getrlimit(RLIMIT_NOFILE, &before);
  struct rlimit const few{40, before.rlim_max};
  struct rlimit const fewest{40, 40};
  auto const index = std::make_shared<ShardIndex const>(folder.path());
  if (setrlimit(RLIMIT_NOFILE, &few) != 0) GTEST_FAIL() << "the limit on open files cannot be lowered";
  {
    RawReader const reader(index);  // raises it, for more shards than a quarter of it
    struct rlimit now {};
    getrlimit(RLIMIT_NOFILE, &now);
    EXPECT_GE(now.rlim_cur, 240U);
  }
  // The hard limit cannot be raised again by everybody: in a process of its own.
  EXPECT_EXIT(
      {
        setrlimit(RLIMIT_NOFILE, &fewest);
        auto const pairs = std::make_shared<PairSet const>(load_pairs(*index));
        Sampler const sampler(1, pairs->pairs.size());
        auto const source = make_pair_source(index, pairs, std::make_shared<RawReader const>(index), sampler, 1, 0);
        Loader loader(source, [](std::uint64_t n) { return std::pair(4 * n, std::int64_t{4}); }, 4,
                      {.threads = 4, .slots = 3, .allocate = {}});
        for (int i = 0; i < 200; ++i) loader.release(loader.next());
        std::_Exit(0);
      },
      ::testing::ExitedWithCode(0), "");
  setrlimit(RLIMIT_NOFILE, &before);
}

}  // namespace
}  // namespace duoflow::data::testing
