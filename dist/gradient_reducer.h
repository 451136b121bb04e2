#pragma once
// GradientReducer: SUM all-reduce of the flat gradient buffer in buckets, started while the backward still runs.
//
// A post-hook on each parameter's gradient accumulator counts its bucket down; buckets start in index order as they
// fill. Armed only for the last micro-step of an update, so an update costs one reduction however many micro-steps it has.
// Per update: zero() -> micro-step backwards -> arm(used) before the last one -> backward -> finish().
// Several backwards may follow arm() (the two halves of a cut graph), as long as each parameter belongs to one of them:
// a gradient that grows after its bucket left (also by a re-entrant checkpoint) is an error in finish() naming it.
// All ranks must declare the same set. On a world of one nothing is sent and the code path is the same.

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "dist/flat_buffer.h"

namespace duoflow::dist {

struct GradientReducerOptions {
  double bucket_mib = 25;
  double first_bucket_mib = 1;  // small, so that communication starts early
};

class GradientReducer {
 public:
  GradientReducer(Communicator communicator, FlatBuffer& buffer, GradientReducerOptions const& options = {});
  ~GradientReducer();
  GradientReducer(GradientReducer const&) = delete;

  void zero();  // clears the gradient buffer (one memset)
  // The next backward is the last of this update. `used` = names expected to receive a gradient (empty: all).
  // A used parameter without a gradient is an error in finish() naming it; buckets without a used parameter
  // are not reduced. `complete` = names among them whose gradients earlier backwards of this update have finished already
  // (a trainable renderer, when all micro-steps' renderers run before the first editor's backward).
  void arm(std::set<std::string> const& used = {}, std::set<std::string> const& complete = {});
  void finish();  // waits for every bucket on the current stream; afterwards gradients() hold the global sums

  std::int64_t collectives_started() const;  // buckets handed to all_reduce (on a null communicator too) since construction: what "one reduction per update" is checked by
  std::int64_t bucket_count() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace duoflow::dist
