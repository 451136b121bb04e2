#pragma once
// Private to the MPI backend: a large fp32 sum as an all-to-all of slices, a local sum and, for an all-reduce, an
// all-gather of the sums. 2 (n-1)/n of the bytes go over the wire. Open MPI 4.1's own non-blocking all-reduce in place
// and reduce-scatter take longer on a slow link (benchmarks/scaling/collectives.cpp measures both). The slices of all
// ranks are added along a binary tree over the ranks, so the sum has the same bits on every rank and in every run.

#include <mpi.h>

#include <vector>

#include "dist/c10d_backend.h"

namespace duoflow::dist {

class MpiExchange {
 public:
  // Whether a sum of this kind and size goes this way; a reduce-scatter of fp32 in place always does.
  static bool takes(Collective const& collective, int size);

  // `scratch`: fp32, at least scratch_numel() elements, not used by others until the sum is done.
  MpiExchange(Collective const& collective, int rank, int size);
  std::int64_t scratch_numel() const { return size_ * mine_; }
  // `all`: a communicator on which every rank starts its collectives in the same order.
  void start(at::Tensor scratch, MPI_Comm all, std::vector<MPI_Request>& requests);
  bool gathers() const { return gathers_; }
  // The all-to-all is done: adds the slices. Then, if gathers(), the all-gather, on a communicator of its own: it
  // starts when its all-to-all is done, which is at another time on every rank.
  void add_slices() const;
  void start_gather(MPI_Comm gather, std::vector<MPI_Request>& requests);
  at::Tensor const& scratch() const { return scratch_; }

 private:
  at::Tensor output_, input_, scratch_;
  int rank_, size_;
  bool gathers_;
  std::int64_t mine_ = 0;                      // elements of the own slice
  std::vector<int> counts_, offsets_;          // of the slices in the tensor; MPI reads them until it is done
  std::vector<int> sent_counts_;               // the same, less the own slice, which does not move
  std::vector<int> own_counts_, own_offsets_;  // of the pieces in scratch
};

}  // namespace duoflow::dist
