#pragma once
// FlatBuffer: trainable parameters and their gradients as views of two flat fp32 tensors.
//
// Layout: one run per set of hyper-parameters (group), the group with the most elements first; within a run reverse
// forward order (the order in which backward finishes); every parameter aligned to 64 bytes (16 floats): fused AdamW on
// CPU gives other bits when a split is not a multiple of 16 elements. Parameters are gathered into buckets, the units
// of communication; each bucket is padded to `slices` equal slices of a multiple of 64 bytes, the units that a rank can
// own. Padding stays zero. After construction each parameter's storage *is* its range: set_data was called on it and
// its .grad is defined as a view of the gradient buffer.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/communicator.h"

namespace duoflow::dist {

struct TrainableParameter {
  std::string name;
  at::Tensor tensor;  // leaf, fp32, requires_grad, same device for all
  int group = 0;      // index of its hyper-parameters (weight decay or none)
  int section = 0;    // 0 to 31: what an update may leave out as a whole; sections follow each other in forward order
};

struct FlatRange {
  std::string name;
  std::int64_t offset = 0;  // in elements of the flat buffer, a multiple of 16
  std::int64_t numel = 0;   // without padding
  std::vector<std::int64_t> shape;
  int group = 0;
};

struct GroupRun {  // a contiguous range whose parameters share hyper-parameters and section
  int group = 0;
  std::int64_t begin = 0, end = 0;
  int section = 0;
};

struct FlatLayout {
  double bucket_mib = 25;
  double first_bucket_mib = 1;  // small, so that communication starts early
  std::int64_t slices = 1;      // per bucket; a multiple of the ranks that share it (ZeRO-1, reproducible sums)
};

struct BucketRange {
  std::int64_t begin = 0, end = 0;                  // elements; (end - begin) is a multiple of 16 x slices
  std::size_t first_parameter = 0, parameters = 0;  // indices into ranges()
};

class FlatBuffer {
 public:
  explicit FlatBuffer(std::vector<TrainableParameter> forward_order, FlatLayout const& layout = {});

  at::Tensor parameters() const { return parameters_; }
  at::Tensor gradients() const { return gradients_; }
  std::vector<FlatRange> const& ranges() const { return ranges_; }  // in buffer order
  std::vector<GroupRun> const& group_runs() const { return group_runs_; }
  std::vector<BucketRange> const& buckets() const { return buckets_; }
  std::int64_t slices() const { return slices_; }
  std::vector<at::Tensor> const& tensors() const { return tensors_; }  // same order as ranges()
  std::int64_t size() const;

 private:
  at::Tensor parameters_, gradients_;
  std::vector<FlatRange> ranges_;
  std::vector<GroupRun> group_runs_;
  std::vector<at::Tensor> tensors_;
  std::vector<BucketRange> buckets_;
  std::int64_t slices_;
};

// What one of `size` ranks owns of the buffer: slices [rank x slices/size, (rank+1) x slices/size) of every bucket, cut
// where the hyper-parameters change; one rank of one owns everything. std::invalid_argument when size does not divide
// the slices.
struct OwnedRange {
  std::int64_t flat = 0;  // where it begins in the flat buffer
  std::int64_t own = 0;   // where it begins in a buffer that holds only what is owned
  std::int64_t numel = 0;
  int group = 0;
  std::size_t bucket = 0;
  int section = 0;
};
std::vector<OwnedRange> owned_ranges(FlatBuffer const& buffer, int rank, int size);

// Throws PeerError on every rank, naming the first difference in names, shapes, dtypes or order against rank 0,
// then makes the values of rank 0 everyone's. Collective.
void agree_on_parameters(Communicator const& communicator, FlatBuffer& buffer);

}  // namespace duoflow::dist
