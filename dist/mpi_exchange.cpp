#include "dist/mpi_exchange.h"

#include <algorithm>
#include <limits>

#include <ATen/ATen.h>

#include "dist/mpi_check.h"

namespace duoflow::dist {
namespace {

constexpr std::int64_t shortest = 16384;  // elements; below it one round trip counts more than the bytes
constexpr std::int64_t alignment = 16;    // elements: slices begin at 64 bytes

// sum[i] = a[i] + b[i]; `sum` may be one of the others. On the communication thread: not through ATen, whose threads
// would take the compute's cores.
void add(float* sum, float const* a, float const* b, std::int64_t count) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) sum[i] = a[i] + b[i];
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
    sent_counts_.push_back(r == rank ? 0 : counts_[static_cast<std::size_t>(r)]);
    own_counts_.push_back(r == rank ? 0 : static_cast<int>(mine_));
    own_offsets_.push_back(static_cast<int>(r * mine_));
  }
}

void MpiExchange::start(at::Tensor scratch, MPI_Comm all, std::vector<MPI_Request>& requests) {
  scratch_ = std::move(scratch);
  DUOFLOW_MPI_CHECK(MPI_Ialltoallv(input_.data_ptr(), sent_counts_.data(), offsets_.data(), MPI_FLOAT,
                                   scratch_.data_ptr(), own_counts_.data(), own_offsets_.data(), MPI_FLOAT, all,
                                   &requests.emplace_back(MPI_REQUEST_NULL)));
}

void MpiExchange::add_slices() const {
  auto const own = static_cast<std::size_t>(offsets_[static_cast<std::size_t>(rank_)]);
  float* const scratch = scratch_.mutable_data_ptr<float>();
  float* const sum = output_.mutable_data_ptr<float>() + (gathers_ ? own : 0);
  std::vector<float const*> pieces;  // the sum of each subtree so far; the own piece is read where it is
  for (std::int64_t r = 0; r < size_; ++r) {
    pieces.push_back(r == rank_ ? input_.const_data_ptr<float>() + own : scratch + r * mine_);
  }
  for (std::int64_t stride = 1; stride < size_; stride *= 2) {
    for (std::int64_t row = 0; row + stride < size_; row += 2 * stride) {
      bool const is_root = 2 * stride >= size_;
      float* const target = is_root ? sum : scratch + row * mine_;
      auto& piece = pieces[static_cast<std::size_t>(row)];
      add(target, piece, pieces[static_cast<std::size_t>(row + stride)], mine_);
      piece = target;
    }
  }
}

void MpiExchange::start_gather(MPI_Comm gather, std::vector<MPI_Request>& requests) {
  DUOFLOW_MPI_CHECK(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, output_.data_ptr(), counts_.data(),
                                    offsets_.data(), MPI_FLOAT, gather, &requests.emplace_back(MPI_REQUEST_NULL)));
}

}  // namespace duoflow::dist
