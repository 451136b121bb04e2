#pragma once
// OperatorCounts: what the operators of a step compute and move, by stage. Floating-point operations are those of matrix
// products, attention and convolutions as they run (recomputed blocks count again; a multiply-add is two); bytes are the
// sizes of the tensors that each operator reads and writes, once each: what would pass between memory and processor if
// no cache kept anything.

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace duoflow::launch {

struct StageCounts {
  double flops = 0, bytes = 0;
  std::int64_t operators = 0;
};

// Counts every operator of the process while it lives, whatever its thread. Slows them down, so times are taken in
// another step. One at a time.
class OperatorCounts {
 public:
  OperatorCounts();
  ~OperatorCounts();
  OperatorCounts(OperatorCounts const&) = delete;

  void stop();  // counts stay what they are
  StageCounts of(std::string const& stage) const;
  StageCounts sum() const;

 private:
  std::optional<std::uint64_t> handle_;
};

}  // namespace duoflow::launch
