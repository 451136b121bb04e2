#pragma once
// PeerRecord: what a rank tells the others about itself, and RecordSlot: where it lies in memory that the ranks of a
// host share. A stopped or killed process cannot answer, but what it wrote last stays readable.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace duoflow::dist {

// Collectives are numbered apart in each: set-up (blocking calls of start and end), the group for CPU tensors, the NCCL group.
enum class Group : int { setup, host, nccl };
inline constexpr std::size_t group_count = 3;

inline constexpr std::size_t label_size = 24;  // with the final 0

// Plain memory, no pointers: records travel between processes and hosts. Times are steady-clock nanoseconds.
struct CollectiveNote {
  char what[32] = {};           // "all_reduce"
  char label[label_size] = {};  // "bucket 3"; empty: none
  char type[16] = {};           // "Float"
  std::int64_t sequence = 0;    // from 1; 0: none yet
  std::int64_t numel = 0;
  std::int64_t issued_ns = 0;

  std::string describe() const;  // "all_reduce #12 (bucket 3) of 1024 Float"
  std::string name() const;      // "all_reduce #12 (bucket 3)"
};
CollectiveNote make_note(std::string_view what, std::string_view label, std::string_view type, std::int64_t sequence,
                         std::int64_t numel);

enum class LastWord : std::int64_t { none, wanted_by_an_echo, wanted, spoken };

struct PeerRecord {
  std::array<CollectiveNote, group_count> last;  // the latest one issued
  std::array<std::int64_t, group_count> completed{};
  std::int64_t step = -1, step_ns = 0;  // -1: not in a step
  std::int64_t alive_ns = 0;            // 0: nothing was ever heard
  LastWord last_word = LastWord::none;
};

inline std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// One writer at a time; any number of readers in any process. Two copies: a writer that is stopped in the middle leaves
// the other one whole.
class RecordSlot {
 public:
  void write(PeerRecord const& record);
  PeerRecord read() const;

 private:
  static constexpr std::size_t words = sizeof(PeerRecord) / sizeof(std::uint64_t);
  static_assert(sizeof(PeerRecord) % sizeof(std::uint64_t) == 0);
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "other processes see this memory");
  using Copy = std::array<std::atomic<std::uint64_t>, words>;
  std::atomic<std::uint64_t> version_{0};
  std::array<Copy, 2> copies_{};
};

}  // namespace duoflow::dist
