#pragma once
// Runs CUDA kernels on a CPU: include this before a .cu file. Of a block every thread is a fiber that goes on until the
// next __syncthreads or shuffle; blocks come one after another. What a GPU leaves open is drawn anew for each block, so that
// a kernel that counts on it gives itself away: the order of blocks and the turns of threads are random, shared memory
// starts as NaN and is as long as the launch asked for. std::logic_error where threads of a block, or lanes of a warp, do
// not meet at the same barrier, and for a write past the shared memory.
//
// Only what the kernels here use is known. One thread of the host at a time. Compiled with -Wno-unknown-pragmas: unroll.

#define DUOFLOW_CUDA_EMULATOR 1
#define __global__
#define __device__
#define __host__

#include <ucontext.h>
#include <csetjmp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

struct EmulatedIndex {
  unsigned x = 0;
};
inline EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

struct __nv_bfloat16 {
  std::uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 value) { return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return {0x7fff};
  return {static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

namespace duoflow::emulated {

enum class State { ready, at_block_barrier, at_warp_barrier, done };

class Block {
 public:
  static constexpr std::size_t kStackBytes = 64 << 10, kGuardBytes = 256;
  static constexpr unsigned kWarp = 32;

  Block(unsigned threads, std::size_t shared_bytes, std::function<void()> const& body, std::mt19937& random)
      : body_(body),
        fibers_(threads),
        order_(threads),
        shared_bytes_(shared_bytes),
        shared_(shared_bytes + kGuardBytes, 0xff),
        random_(random) {
    std::iota(order_.begin(), order_.end(), 0U);
  }

  void run() {
    current() = this;
    while (std::any_of(fibers_.begin(), fibers_.end(), [](Fiber const& f) { return f.state != State::done; })) {
      std::shuffle(order_.begin(), order_.end(), random_);
      for (unsigned const i : order_)
        if (fibers_[i].state == State::ready) resume(i);
      if (error_) std::rethrow_exception(error_);
      release();
    }
    for (std::size_t i = shared_bytes_; i < shared_.size(); ++i)
      if (shared_[i] != 0xff)
        throw std::logic_error("a kernel wrote past its shared memory of " + std::to_string(shared_bytes_) + " bytes");
  }

  static Block*& current() {
    static Block* block = nullptr;
    return block;
  }
  void* shared() { return shared_.data(); }
  void wait(State barrier) {
    Fiber& fiber = fibers_[running_];
    fiber.state = barrier;
    if (_setjmp(fiber.place) == 0) _longjmp(scheduler_, 1);
  }
  // What lane ^ offset gives; two sets of slots in turn, since a lane may give again before another has taken.
  template <typename T>
  T exchange(T value, unsigned offset) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t));
    Fiber& mine = fibers_[running_];
    unsigned const other = running_ / kWarp * kWarp + ((running_ % kWarp) ^ offset), turn = mine.turn;
    std::memcpy(&mine.given[turn], &value, sizeof(T));
    mine.turn ^= 1U;
    wait(State::at_warp_barrier);
    std::memcpy(&value, &fibers_.at(other).given[turn], sizeof(T));
    return value;
  }

 private:
  struct Fiber {
    std::jmp_buf place;
    bool started = false;
    State state = State::ready;
    std::uint64_t given[2] = {};
    unsigned turn = 0;
  };

  static void enter() {
    Block& block = *current();
    try {
      block.body_();
    } catch (...) {
      block.error_ = std::current_exception();
    }
    block.fibers_[block.running_].state = State::done;
    _longjmp(block.scheduler_, 1);
  }

  // A context takes a thread onto its own stack; from there on jumps are 20 times as fast.
  void resume(unsigned i) {
    running_ = i;
    threadIdx.x = i;
    if (_setjmp(scheduler_) != 0) return;
    if (fibers_[i].started) _longjmp(fibers_[i].place, 1);
    fibers_[i].started = true;
    static std::vector<std::unique_ptr<char[]>> stacks;  // of blocks before, too
    while (stacks.size() <= i) stacks.push_back(std::make_unique_for_overwrite<char[]>(kStackBytes));
    ucontext_t context;
    getcontext(&context);
    context.uc_link = nullptr;
    context.uc_stack.ss_sp = stacks[i].get();
    context.uc_stack.ss_size = kStackBytes;
    makecontext(&context, &Block::enter, 0);
    setcontext(&context);
  }

  // Nobody is ready: a warp whose lanes all wait for each other goes on, and a block whose threads all do.
  void release() {
    auto const all = [this](std::size_t first, std::size_t end, State state) {
      return std::all_of(fibers_.begin() + static_cast<std::ptrdiff_t>(first), fibers_.begin() + static_cast<std::ptrdiff_t>(end),
                         [state](Fiber const& f) { return f.state == state; });
    };
    bool goes_on = all(0, fibers_.size(), State::done);
    auto const free = [&](std::size_t first, std::size_t end, State state) {
      if (!all(first, end, state)) return;
      goes_on = true;
      for (std::size_t i = first; i < end; ++i) fibers_[i].state = State::ready;
    };
    for (std::size_t first = 0; first < fibers_.size(); first += kWarp)
      free(first, std::min(first + kWarp, fibers_.size()), State::at_warp_barrier);
    free(0, fibers_.size(), State::at_block_barrier);
    if (!goes_on)
      throw std::logic_error("threads of block " + std::to_string(blockIdx.x) + " do not meet at a barrier: some left or wait elsewhere");
  }

  std::function<void()> const& body_;
  std::vector<Fiber> fibers_;
  std::vector<unsigned> order_;
  std::size_t shared_bytes_;
  std::vector<unsigned char> shared_;
  std::mt19937& random_;
  std::jmp_buf scheduler_;
  unsigned running_ = 0;
  std::exception_ptr error_;
};

}  // namespace duoflow::emulated

inline void __syncthreads() { duoflow::emulated::Block::current()->wait(duoflow::emulated::State::at_block_barrier); }
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int offset) {
  if (mask != 0xffffffffU) throw std::logic_error("the emulator knows shuffles of whole warps only");
  return duoflow::emulated::Block::current()->exchange(value, static_cast<unsigned>(offset));
}

namespace duoflow::gpu {

// Few, so that a small test makes threads go round.
constexpr std::int64_t kSummingBlocks = 3, kStridingBlocks = 3;

template <typename T>
T* shared_memory() {
  return static_cast<T*>(emulated::Block::current()->shared());
}

template <typename... Parameters, typename... Arguments>
void launch(char const*, void (*kernel)(Parameters...), std::int64_t grid, int block, std::size_t shared_bytes, void*,
            Arguments... arguments) {
  static std::mt19937 random(1);
  std::vector<unsigned> order(static_cast<std::size_t>(grid));
  std::iota(order.begin(), order.end(), 0U);
  std::shuffle(order.begin(), order.end(), random);
  gridDim.x = static_cast<unsigned>(grid);
  blockDim.x = static_cast<unsigned>(block);
  std::function<void()> const body = [&] { kernel(arguments...); };
  for (unsigned const index : order) {
    blockIdx.x = index;
    emulated::Block(blockDim.x, shared_bytes, body, random).run();
  }
}

}  // namespace duoflow::gpu
