// An ingest that is killed, or whose disk fills, and what the next one makes of it.

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "data/folder_lock.h"
#include "data/shards/shard_writer.h"
#include "lvsm_folder.h"

namespace duoflow::data::testing {
namespace {

namespace fs = std::filesystem;

// Runs `action` in a process of its own; its exit status as waitpid gives it, and what it wrote to `report` (a pipe's end).
struct Outcome {
  int status = 0;
  std::string text;
};
Outcome in_child(std::function<void(int)> const& action) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) { std::abort(); }
  pid_t const child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    action(ends[1]);
    ::_exit(0);
  }
  ::close(ends[1]);
  Outcome outcome;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = ::read(ends[0], buffer.data(), buffer.size())) > 0;) { outcome.text.append(buffer.data(), static_cast<std::size_t>(got)); }
  ::close(ends[0]);
  ::waitpid(child, &outcome.status, 0);
  return outcome;
}

void tell(int report, std::string const& text) {
  if (::write(report, text.data(), text.size()) < 0) { std::abort(); }
}
void tell_error(int report, IngestOptions const& options) {
  try {
    ingest_lvsm(options);
    tell(report, "no error");
  } catch (std::exception const& error) {
    tell(report, error.what());
  }
}

// Killed as soon as the shard of this name is finished.
Outcome killed_after(std::string const& shard, IngestOptions options) {
  return in_child([&](int) {
    options.say = [&](std::string const& line) {
      if (line.starts_with(shard)) { ::raise(SIGKILL); }
    };
    ingest_lvsm(options);
  });
}

std::vector<std::string> bytes_of(std::string const& folder, std::vector<std::string> const& files) {
  std::vector<std::string> out;
  for (auto const& file : files) { out.push_back(file_bytes(folder + "/" + file)); }
  return out;
}

TEST(IngestRestartTest, AKilledIngestKeepsItsShardsAndEndsWithTheSameBytes) {
  LvsmFolder const folder;
  auto options = folder.options();
  auto const whole = ingest_lvsm(options);
  auto const expected = bytes_of(options.out, whole.shards);
  options.out = folder.path("restarted");
  for (std::string const shard : {"scenes-00000.h5", "scenes-00001.h5"}) {
    auto const outcome = killed_after(shard, options);
    ASSERT_TRUE(WIFSIGNALED(outcome.status)) << shard;
    put_bytes(options.out + "/scenes-00002.h5.tmp-99999", "half a shard");  // as a kill in the middle of one leaves it
  }
  EXPECT_FALSE(fs::exists(options.out + "/manifest.json"));
  options.threads = 3;
  auto const report = ingest_lvsm(options);
  EXPECT_EQ(report.kept, 2);
  EXPECT_EQ(bytes_of(options.out, report.shards), expected);
  write_manifest(options.out, ShardKind::scene, report.all_shards);
  end_ingest(options.out);
  std::vector<std::string> names;
  for (auto const& entry : fs::directory_iterator(options.out)) { names.push_back(entry.path().filename().string()); }
  EXPECT_EQ(names.size(), 4U) << fmt::format("{}", fmt::join(names, " "));
}

TEST(IngestRestartTest, OnlyShardsOfTheSameSourcesAndOptionsAreKept) {
  LvsmFolder const folder;
  auto options = folder.options();
  auto const kept = [&] { return ingest_lvsm(options).kept; };
  EXPECT_EQ(kept(), 0);
  EXPECT_EQ(kept(), 3);
  fs::copy_file(folder.picture("ball_env_0", 0), folder.picture("cube_env_1", 1), fs::copy_options::overwrite_existing);
  EXPECT_EQ(kept(), 2) << "another picture in the last shard";
  folder.edit_metadata("cube_env_1", "[10, 10, 4, 4]", "[10, 10.5, 4, 4]");
  EXPECT_EQ(kept(), 2) << "another camera in the last shard";
  flip_byte(options.out + "/scenes-00000.h5", fs::file_size(options.out + "/scenes-00000.h5") / 2);
  EXPECT_EQ(kept(), 2) << "a shard that was altered on disk";
  EXPECT_EQ(kept(), 3);
  options.size = 4;
  EXPECT_EQ(kept(), 0) << "another size";
  options.scenes_per_shard = 3;
  EXPECT_EQ(kept(), 0) << "other members";
  put_bytes(options.out + "/scenes-00000.h5.receipt", "not a receipt");
  EXPECT_EQ(kept(), 1);
}

TEST(IngestRestartTest, AWriterThatIsRefusedHasWrittenNothing) {
  LvsmFolder const folder;
  auto options = folder.options();
  FolderLock const other(options.out);
  options.before_writing = [&] { FolderLock const mine(options.out); };
  EXPECT_TRUE(says(data_error_of([&] { ingest_lvsm(options); }), {"is being written by process"}));
  fs::remove(options.out + "/writer.lock");
  EXPECT_TRUE(fs::is_empty(options.out));
}

IngestOptions larger(LvsmFolder const& folder) {
  auto options = folder.options();
  options.size = 64;  // 4 frames a shard: 64 KiB of pictures and masks
  return options;
}

TEST(IngestRestartTest, AFileThatMayNotGrowLeavesNoPartialShardAndSaysWhatWasMissing) {
  LvsmFolder const folder;
  auto const options = larger(folder);
  auto const outcome = in_child([&](int report) {
    ::signal(SIGXFSZ, SIG_IGN);
    struct rlimit const limit {30000, 30000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    tell_error(report, options);
  });
  EXPECT_TRUE(says(outcome.text, {"scenes-00000.h5", "a file may have 30000", "are missing"}));
  EXPECT_TRUE(fs::is_empty(options.out));
}

// In a namespace of mounts of its own, with a disk of this many KiB over the output folder. False where that is not allowed.
bool mount_small_disk(std::string const& folder, int kib) {
  fs::create_directories(folder);
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", folder.c_str(), "tmpfs", 0, fmt::format("size={}k", kib).c_str()) == 0;
}

TEST(IngestRestartTest, ADiskWithoutRoomIsNamedBeforeAnythingIsWritten) {
  LvsmFolder const folder;
  auto const options = larger(folder);
  auto const outcome = in_child([&](int report) {
    if (!mount_small_disk(options.out, 128)) { return tell(report, "not allowed"); }
    tell_error(report, options);
    tell(report, fs::is_empty(options.out) ? " and the folder is empty" : " and something is there");
  });
  if (outcome.text == "not allowed") { GTEST_SKIP() << "mounting a small disk needs privileges"; }
  EXPECT_TRUE(says(outcome.text, {"the shards need", "131072 free", "are missing", "nothing was written", "and the folder is empty"}));
}

TEST(IngestRestartTest, ADiskThatFillsKeepsWholeShardsOnly) {
  LvsmFolder const folder;
  auto options = larger(folder);
  auto const outcome = in_child([&](int report) {
    if (!mount_small_disk(options.out, 400)) { return tell(report, "not allowed"); }
    options.say = [&](std::string const& line) {
      if (!line.starts_with("scenes-00000.h5")) { return; }
      auto const left = fs::space(options.out).available;
      std::ofstream(options.out + "/filler") << std::string(left - 24576, 'f');  // somebody else's
    };
    tell_error(report, options);
    for (auto const& entry : fs::directory_iterator(options.out)) { tell(report, " [" + entry.path().filename().string() + "]"); }
  });
  if (outcome.text == "not allowed") { GTEST_SKIP() << "mounting a small disk needs privileges"; }
  EXPECT_TRUE(says(outcome.text, {"scenes-00001.h5", "the disk has", "are missing", "[scenes-00000.h5]", "[scenes-00000.h5.receipt]", "[filler]"}));
  EXPECT_EQ(outcome.text.find("tmp-"), std::string::npos) << outcome.text;
  EXPECT_EQ(outcome.text.find("[scenes-00001"), std::string::npos) << outcome.text;
}

}  // namespace
}  // namespace duoflow::data::testing
