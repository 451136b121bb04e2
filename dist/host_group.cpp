#include "dist/host_group.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <new>
#include <random>
#include <sstream>
#include <stdexcept>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dist/session.h"

namespace duoflow::dist {

struct HostGroup::Memory {
  std::atomic<int> last_word_taken{0};
  RecordSlot first_slot;  // and behind it one for every other rank of this host
};

namespace {

static_assert(std::atomic<int>::is_always_lock_free, "other processes see this memory");

// The same text on all ranks of a host, on no two hosts. Containers of one host may have their own /dev/shm.
std::string identity_of_host() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  struct stat memory {};
  stat("/dev/shm", &memory);
  return fmt::format("{}/{}/{}", host_name(), boot, memory.st_dev);
}

[[noreturn]] void fail(std::string const& name, int reason) {
  throw std::runtime_error(
      fmt::format("memory for the ranks of this host could not be shared (/dev/shm{}: {}), see whether "
                  "/dev/shm is mounted and has space",
                  name, std::strerror(reason)));
}

void* map(int descriptor, std::size_t bytes) {
  int const flags = descriptor < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED;
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, descriptor, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

// Maps the named memory, making it first if told to; null and errno when that fails.
void* open_and_map(std::string const& name, std::size_t bytes, bool make) {
  int const descriptor = shm_open(name.c_str(), make ? O_RDWR | O_CREAT | O_EXCL : O_RDWR, S_IRUSR | S_IWUSR);
  if (descriptor < 0) return nullptr;
  // Space is taken now: a full /dev/shm is an error here and not a signal later.
  int const refused = make ? posix_fallocate(descriptor, 0, static_cast<off_t>(bytes)) : 0;
  void* const memory = refused == 0 ? map(descriptor, bytes) : nullptr;
  int const reason = refused != 0 ? refused : errno;
  close(descriptor);
  errno = reason;
  return memory;
}

}  // namespace

HostGroup::HostGroup(Session* session) {
  int rank = 0;
  if (session != nullptr) {
    rank = session->world().rank;
    ranks_.clear();
    auto const mine = identity_of_host();
    auto const lines = session->gather_strings(fmt::format("{} {}", getpid(), mine));
    for (int other = 0; other < static_cast<int>(lines.size()); ++other) {
      std::istringstream line(lines[static_cast<std::size_t>(other)]);
      pid_t process = 0;
      std::string identity;
      line >> process >> identity;
      if (identity != mine) continue;
      if (other == rank) place_ = size();
      ranks_.push_back(other);
      // A descriptor and not the number, which may be another process by the time it is used.
      processes_.push_back(other == rank ? -1 : static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
    }
  }
  bytes_ = sizeof(Memory) + ranks_.size() * sizeof(RecordSlot);
  if (session != nullptr) {
    share_memory(*session, rank);
    return;
  }
  void* const alone = map(-1, bytes_);
  if (alone == nullptr) fail("", errno);
  memory_ = new (alone) Memory;
}

void HostGroup::share_memory(Session& session, int rank) {
  bool const makes = place_ == 0;
  std::string name;
  void* memory = nullptr;
  int reason = 0;
  if (makes) {
    std::random_device random;
    name = fmt::format("/duoflow-{:08x}{:08x}", random(), random());
    memory = open_and_map(name, bytes_, /*make=*/true);
    reason = errno;
    if (memory != nullptr) {
      memory_ = new (memory) Memory;
      for (int i = 1; i < size(); ++i) new (&memory_->first_slot + i) RecordSlot;
    }
  }
  auto const names = session.gather_strings(name);
  name = names[static_cast<std::size_t>(ranks_.front())];
  if (!makes) {
    memory = open_and_map(name, bytes_, /*make=*/false);
    reason = errno;
    memory_ = static_cast<Memory*>(memory);
  }
  auto const problems = session.gather_strings(memory != nullptr ? "" : std::to_string(reason));
  if (makes) shm_unlink(name.c_str());  // whoever has mapped it keeps it
  for (int const other : ranks_) {
    auto const& problem = problems[static_cast<std::size_t>(other)];
    if (!problem.empty() && (other == rank || other == ranks_.front())) fail(name, std::stoi(problem));
  }
  if (std::any_of(problems.begin(), problems.end(), [](std::string const& text) { return !text.empty(); })) {
    throw std::runtime_error("another rank could not share memory with its host's ranks, see its message");
  }
}

HostGroup::~HostGroup() {
  for (int const process : processes_) {
    if (process >= 0) close(process);
  }
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

RecordSlot* HostGroup::slot(int rank) const {
  auto const found = std::find(ranks_.begin(), ranks_.end(), rank);
  return found == ranks_.end() ? nullptr : &memory_->first_slot + (found - ranks_.begin());
}

bool HostGroup::claim_last_word() { return memory_->last_word_taken.exchange(1) == 0; }

void HostGroup::kill(std::vector<int> const& ranks) const {
  for (std::size_t i = 0; i < processes_.size(); ++i) {
    if (processes_[i] < 0 || std::find(ranks.begin(), ranks.end(), ranks_[i]) == ranks.end()) continue;
    syscall(SYS_pidfd_send_signal, processes_[i], SIGKILL, nullptr, 0);
  }
}

}  // namespace duoflow::dist
