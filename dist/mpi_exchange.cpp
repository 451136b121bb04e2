#include "dist/mpi_exchange.h"

#include <algorithm>
#include <limits>

#include <ATen/ATen.h>

#include "dist/mpi_check.h"

namespace duoflow::dist {
namespace {

constexpr std::int64_t shortest = 16384;  // elements; below it one round trip counts more than the bytes
constexpr std::int64_t alignment = 16;    // elements: slices begin at 64 bytes

// a[i] += b[i]. On the communication thread: not through ATen, whose threads would take the compute's cores.
void add(float* __restrict a, float const* __restrict b, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) a[i] += b[i];
}

}  // namespace

bool MpiExchange::takes(Collective const& collective, int size) {
  bool const scatters = collective.kind == CollectiveKind::reduce_scatter;
  bool const is_sum = scatters || collective.kind == CollectiveKind::all_reduce;
  if (!is_sum || collective.op != c10d::ReduceOp::SUM) return false;
  at::Tensor const& whole = scatters ? collective.input : collective.output;
  if (whole.scalar_type() != at::kFloat || whole.numel() >= std::numeric_limits<int>::max() / 2) return false;
  // MPI's own reduce-scatter must not write into its input.
  if (scatters && collective.output.is_alias_of(collective.input)) return true;
  return size > 1 && whole.numel() >= shortest;
}

MpiExchange::MpiExchange(Collective const& collective, int rank, int size)
    : output_(collective.output),
      input_(collective.kind == CollectiveKind::all_reduce ? collective.output : collective.input),
      rank_(rank),
      size_(size),
      gathers_(collective.kind == CollectiveKind::all_reduce) {
  std::int64_t const numel = input_.numel();
  std::int64_t slice = numel / size;
  if (gathers_) slice = ((numel + size - 1) / size + alignment - 1) / alignment * alignment;
  for (std::int64_t r = 0; r < size; ++r) {
    std::int64_t const begin = std::min(r * slice, numel);
    offsets_.push_back(static_cast<int>(begin));
    counts_.push_back(static_cast<int>(std::min(slice, numel - begin)));
  }
  mine_ = counts_[static_cast<std::size_t>(rank)];
  for (std::int64_t r = 0; r < size; ++r) {
    own_counts_.push_back(static_cast<int>(mine_));
    own_offsets_.push_back(static_cast<int>(r * mine_));
  }
}

void MpiExchange::start(at::Tensor scratch, MPI_Comm all, std::vector<MPI_Request>& requests) {
  scratch_ = std::move(scratch);
  DUOFLOW_MPI_CHECK(MPI_Ialltoallv(input_.data_ptr(), counts_.data(), offsets_.data(), MPI_FLOAT, scratch_.data_ptr(),
                                   own_counts_.data(), own_offsets_.data(), MPI_FLOAT, all,
                                   &requests.emplace_back(MPI_REQUEST_NULL)));
}

void MpiExchange::add_slices() const {
  auto* const pieces = scratch_.mutable_data_ptr<float>();
  for (std::int64_t stride = 1; stride < size_; stride *= 2) {
    for (std::int64_t row = 0; row + stride < size_; row += 2 * stride) {
      add(pieces + row * mine_, pieces + (row + stride) * mine_, mine_);
    }
  }
  float* const sum = output_.mutable_data_ptr<float>() + (gathers_ ? offsets_[static_cast<std::size_t>(rank_)] : 0);
  std::copy_n(pieces, mine_, sum);
}

void MpiExchange::start_gather(MPI_Comm gather, std::vector<MPI_Request>& requests) {
  DUOFLOW_MPI_CHECK(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, output_.data_ptr(), counts_.data(),
                                    offsets_.data(), MPI_FLOAT, gather, &requests.emplace_back(MPI_REQUEST_NULL)));
}

}  // namespace duoflow::dist
