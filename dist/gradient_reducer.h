#pragma once
// GradientReducer: SUM reduction of the flat gradient buffer in buckets, started while the backward still runs.
//
// A post-hook on each parameter's gradient accumulator counts its bucket down; buckets start in index order as they
// fill. Armed only for the last micro-step of an update, so an update costs one reduction however many micro-steps it
// has. Per update: zero() -> micro-step backwards -> arm(used) before the last one -> backward -> finish().
// Several backwards may follow arm() (the two halves of a cut graph), as long as each parameter belongs to one of them:
// a gradient that grows after its bucket left (also by a re-entrant checkpoint) is an error in finish() naming it.
// All ranks must declare the same set. On a world of one nothing is sent and the code path is the same.
//
// A bucket costs one all-reduce; with `sharded` one reduce-scatter (every rank is left with its own slices,
// flat_buffer.h); with `reproducible` one all-to-all, the sum along the tree (reproducible_sum.h), and, unless sharded,
// one all-gather. The same bytes either way. With `bf16` gradients travel at half the bytes, again as an all-to-all and
// an all-gather, so that they are summed in fp32 and rounded once (an all-reduce in bf16 would round at every
// addition); all ranks take the rounded sums, so replicas stay equal.

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "dist/flat_buffer.h"

namespace duoflow::dist {

struct ReductionOptions {
  bool sharded = false;
  bool reproducible = false;  // not with bf16: what is rounded would depend on the rank count
  std::int64_t shards = 1;    // reproducible: virtual shards that this rank computes in an update, one per micro-step
  bool bf16 = false;
};

class GradientReducer {
 public:
  GradientReducer(Communicator communicator, FlatBuffer& buffer, ReductionOptions const& options = {});
  ~GradientReducer();
  GradientReducer(GradientReducer const&) = delete;

  void zero();  // clears the gradient buffer (one memset)
  // The next backward is the last of this update. `used` = names expected to receive a gradient (empty: all).
  // A used parameter without a gradient is an error in finish() naming it; buckets without a used parameter
  // are not reduced. `complete` = names among them whose gradients earlier backwards of this update have finished
  // already (a trainable renderer, when all micro-steps' renderers run before the first editor's backward).
  void arm(std::set<std::string> const& used = {}, std::set<std::string> const& complete = {});
  // Reproducible: the gradients of `names` are virtual shard number `shard`'s of this rank, and complete. Called for
  // all shards but the last, in order, for disjoint sets of names.
  void shard_done(std::int64_t shard, std::set<std::string> const& names);
  void finish();  // waits for every bucket on the current stream; afterwards own_gradients() holds the global sums
  // Instead of finish(), after an exception on the way there whose work is not to be waited for: the next zero() begins
  // anew.
  void abandon();

  // How long the hooks have kept the backward waiting for an exchange on the host since the last call, ms. It ends with
  // the backward: what finish() waits is not in it. On CUDA streams wait, not the host.
  double take_waited_ms();

  // The whole gradient buffer, or with `sharded` what owned_ranges() lists, in their order. The latter after finish():
  // it is the begin of the gradient buffer, whose rest then holds nothing.
  at::Tensor own_gradients() const;

  // Buckets handed over (on a null communicator too) since construction: what "one reduction per update" is checked by.
  std::int64_t collectives_started() const;
  std::int64_t bucket_count() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace duoflow::dist
