#pragma once
// OperatorCounts: what the operators of a step compute and move, by stage and name. Floating-point operations are those of
// matrix products, attention and convolutions as they run (recomputed blocks count again; a multiply-add is two; of an
// operator that calls others theirs alone); bytes are the sizes of the tensors that each operator reads and writes, once
// each: what would pass between memory and processor if no cache kept anything. Operators are ATen's and those of
// model/fused; the sum of the gradients' squares and, on CUDA, the optimizer's kernel (dist/) are not seen.
//
// `useful` are those of the floating-point operations that the step's result needs once: not those of a stage that
// StageTimeline::again() says is run again, nor one of the five products of a backward of attention that did not keep its
// scores.

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace duoflow::launch {

struct StageCounts {
  double flops = 0, useful = 0, bytes = 0;
  std::int64_t operators = 0;
  StageCounts& operator+=(StageCounts const& other);
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
  std::map<std::string, StageCounts> operators_of(std::string const& stage) const;  // by their names

 private:
  std::optional<std::uint64_t> handle_;
};

}  // namespace duoflow::launch
