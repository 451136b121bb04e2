#include "dist/host_collective.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace duoflow::dist {
namespace {

void reduce_into(at::Tensor const& sum, at::Tensor const& part, c10d::ReduceOp::RedOpType op) {
  switch (op) {
    case c10d::ReduceOp::SUM:
      sum.add_(part);
      return;
    case c10d::ReduceOp::MAX:
      at::maximum_out(const_cast<at::Tensor&>(sum), sum, part);
      return;
    case c10d::ReduceOp::MIN:
      at::minimum_out(const_cast<at::Tensor&>(sum), sum, part);
      return;
    default:
      throw std::logic_error("reduction that the interface does not have");
  }
}

at::Tensor reduce_in_rank_order(std::vector<Collective> const& calls) {
  Collective const& first = calls.front();
  bool const scatters = first.kind == CollectiveKind::reduce_scatter;
  at::Tensor const sum = (scatters ? first.input : first.output).clone();
  for (std::size_t rank = 1; rank < calls.size(); ++rank) {
    Collective const& other = calls[rank];
    reduce_into(sum, (scatters ? other.input : other.output).view_as(sum), first.op);
  }
  return sum;
}

// Piece r of every rank's input, in rank order, for rank r.
void exchange_pieces(std::vector<Collective> const& calls) {
  auto const ranks = static_cast<std::int64_t>(calls.size());
  std::vector<at::Tensor> inputs;
  for (auto const& call : calls) {
    inputs.push_back(call.input.clone().view({ranks, call.input.numel() / ranks}));
  }
  at::Tensor const all = at::stack(inputs);  // [from, to, piece]
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    at::Tensor const output = calls[static_cast<std::size_t>(rank)].output;
    output.copy_(all.select(1, rank).reshape(output.sizes()));
  }
}

}  // namespace

void compute(std::vector<Collective> const& calls) {
  at::NoGradGuard no_grad;
  Collective const& first = calls.front();
  auto const ranks = static_cast<std::int64_t>(calls.size());
  if (first.kind == CollectiveKind::barrier) {
    return;
  }
  if (first.kind == CollectiveKind::all_to_all) {
    exchange_pieces(calls);
    return;
  }
  at::Tensor result;
  if (first.kind == CollectiveKind::broadcast) {
    result = calls[static_cast<std::size_t>(first.root)].output.clone();
  } else if (first.kind == CollectiveKind::all_gather) {
    std::vector<at::Tensor> inputs;
    for (auto const& call : calls) {
      inputs.push_back(call.input.view({-1}));
    }
    result = at::cat(inputs);
  } else {
    result = reduce_in_rank_order(calls);
  }
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    at::Tensor const output = calls[static_cast<std::size_t>(rank)].output;
    bool const scatters = first.kind == CollectiveKind::reduce_scatter;
    at::Tensor const mine = scatters ? result.view({-1}).narrow(0, rank * output.numel(), output.numel()) : result;
    output.copy_(mine.view(output.sizes()));
  }
}

std::string disagreement(std::vector<Collective> const& calls) {
  Collective const& first = calls.front();
  for (std::size_t rank = 1; rank < calls.size(); ++rank) {
    Collective const& other = calls[rank];
    if (other.describe() != first.describe() || other.op != first.op || other.root != first.root) {
      return fmt::format("rank 0 called {}, rank {} called {} (all ranks must make the same calls in the same order)",
                         first.describe(), rank, other.describe());
    }
  }
  return "";
}

}  // namespace duoflow::dist
