#pragma once
// The least of io_uring(7) that reads need: one ring of a thread, by system calls alone, so that no package is needed.
// Aborts where a read fails or comes short: a benchmark's figures would mean nothing.

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace duoflow::data {

class Uring {
 public:
  explicit Uring(unsigned depth) {
    io_uring_params p{};
    fd_ = static_cast<int>(::syscall(__NR_io_uring_setup, depth, &p));
    if (fd_ < 0) throw std::runtime_error(std::string("io_uring_setup: ") + std::strerror(errno) + " (this kernel or container has none)");
    // Since 5.4 both rings are one mapping.
    auto const bytes = std::max(p.sq_off.array + p.sq_entries * sizeof(std::uint32_t), p.cq_off.cqes + p.cq_entries * sizeof(io_uring_cqe));
    rings_ = static_cast<char*>(map(bytes, IORING_OFF_SQ_RING));
    entries_ = static_cast<io_uring_sqe*>(map(p.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES));
    mask_ = p.sq_entries - 1;
    sq_tail_ = at(p.sq_off.tail), sq_array_ = at(p.sq_off.array);
    cq_head_ = at(p.cq_off.head), cq_tail_ = at(p.cq_off.tail), cq_mask_ = *at(p.cq_off.ring_mask);
    completions_ = reinterpret_cast<io_uring_cqe*>(rings_ + p.cq_off.cqes);
  }
  ~Uring() { ::close(fd_); }  // the mappings go with the process
  Uring(Uring const&) = delete;

  unsigned in_flight() const { return in_flight_; }

  void read(int fd, std::uint64_t offset, std::size_t bytes, void* to) {
    auto const tail = *sq_tail_;
    io_uring_sqe& entry = entries_[tail & mask_];
    std::memset(&entry, 0, sizeof(entry));
    entry.opcode = IORING_OP_READ;
    entry.fd = fd;
    entry.off = offset;
    entry.addr = reinterpret_cast<std::uint64_t>(to);
    entry.len = static_cast<std::uint32_t>(bytes);
    entry.user_data = bytes;
    sq_array_[tail & mask_] = tail & mask_;
    std::atomic_ref(*sq_tail_).store(tail + 1, std::memory_order_release);
    ++in_flight_;
    enter(1, 0);
  }

  void wait_for_one() {
    auto const head = *cq_head_;
    while (std::atomic_ref(*cq_tail_).load(std::memory_order_acquire) == head) enter(0, 1);
    auto const& done = completions_[head & cq_mask_];
    if (done.res < 0 || static_cast<std::uint64_t>(done.res) != done.user_data) std::abort();
    std::atomic_ref(*cq_head_).store(head + 1, std::memory_order_release);
    --in_flight_;
  }

 private:
  void* map(std::size_t bytes, long long offset) const {
    void* const place = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, offset);
    if (place == MAP_FAILED) throw std::runtime_error(std::string("io_uring's rings: ") + std::strerror(errno));
    return place;
  }
  std::uint32_t* at(std::uint32_t offset) const { return reinterpret_cast<std::uint32_t*>(rings_ + offset); }
  void enter(unsigned submit, unsigned wait) const {
    if (::syscall(__NR_io_uring_enter, fd_, submit, wait, wait > 0 ? IORING_ENTER_GETEVENTS : 0U, nullptr, 0) < 0 && errno != EINTR) std::abort();
  }

  int fd_ = -1;
  char* rings_ = nullptr;
  io_uring_sqe* entries_ = nullptr;
  io_uring_cqe* completions_ = nullptr;
  std::uint32_t *sq_tail_ = nullptr, *sq_array_ = nullptr, *cq_head_ = nullptr, *cq_tail_ = nullptr;
  std::uint32_t mask_ = 0, cq_mask_ = 0;
  unsigned in_flight_ = 0;
};

}  // namespace duoflow::data
