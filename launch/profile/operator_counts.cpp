#include "launch/profile/operator_counts.h"

#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>

#include "launch/profile/stages.h"

namespace duoflow::launch {
namespace {

std::mutex guard;
std::map<std::string, StageCounts> by_stage;  // under guard

using Inputs = std::vector<at::Tensor>;  // the tensor arguments, in order

double elements(at::Tensor const& x) { return static_cast<double>(x.numel()); }
double side(at::Tensor const& x, std::int64_t dimension) { return static_cast<double>(x.size(dimension)); }

double product(Inputs const& in, std::size_t first) { return 2 * elements(in[first]) * side(in[first + 1], -1); }

// Two products forward, five backward (the scores once more, and a gradient for each factor of the two).
double attention(Inputs const& in, std::size_t query, double products) {
  return products * 2 * elements(in[query]) * side(in[query + 1], -2);
}

// in: input, weight. A filter's products for every output pixel; the padding's are counted too.
double convolution(Inputs const& in, at::Tensor const& output) {
  return 2 * elements(output) * elements(in[1]) / side(in[1], 0);
}

double flops_of(std::string_view name, Inputs const& in, at::Tensor const& out) {
  if (name == "aten::mm" || name == "aten::bmm") return in.size() < 2 ? 0 : product(in, 0);
  if (name == "aten::addmm" || name == "aten::baddbmm") return in.size() < 3 ? 0 : product(in, 1);
  if (name.find("dot_product") != name.npos && name.find("_attention") != name.npos && in.size() >= 3) {
    if (name.find("backward") != name.npos) return attention(in, 1, 5);  // in[0]: gradient of the result
    return name == "aten::scaled_dot_product_attention" ? 0 : attention(in, 0, 2);  // that one calls the others
  }
  if ((name == "aten::mkldnn_convolution" || name == "aten::cudnn_convolution" || name == "aten::thnn_conv2d") && in.size() >= 2 &&
      out.defined())
    return convolution(in, out);
  if (name == "aten::convolution_backward" && in.size() >= 3)
    return 2 * convolution({in[1], in[2]}, in[0]);
  return 0;
}

// One that calls others moves nothing by itself.
struct Running : at::ObserverContext {
  Running* outer = nullptr;
  bool calls_others = false;
  std::string stage;
  Inputs inputs;
};
thread_local Running* running = nullptr;

template <typename Values>
Inputs tensors_of(Values const& values) {
  Inputs tensors;
  for (auto const& value : values) {
    if (value.isTensor() && value.toTensor().defined()) tensors.push_back(value.toTensor());
    if (value.isTensorList())
      for (at::Tensor const& tensor : value.toTensorVector()) tensors.push_back(tensor);
  }
  return tensors;
}

std::unique_ptr<at::ObserverContext> on_start(at::RecordFunction const& call) {
  auto context = std::make_unique<Running>();
  context->outer = running;
  context->stage = StageTimeline::current();
  context->inputs = tensors_of(call.inputs());
  if (running != nullptr) running->calls_others = true;
  running = context.get();
  return context;
}

bool is_view(std::string_view name, Inputs const& in, Inputs const& out) {
  if (name.ends_with("_") || name.ends_with("_out")) return false;  // writes into what it was given
  for (auto const& o : out)
    for (auto const& i : in)
      if (o.has_storage() && i.has_storage() && o.is_alias_of(i)) return true;
  return false;
}

void on_end(at::RecordFunction const& call, at::ObserverContext* plain) {
  auto& context = *static_cast<Running*>(plain);
  running = context.outer;
  auto const outputs = tensors_of(call.outputs());
  std::string_view const name = call.name();
  double const flops = flops_of(name, context.inputs, outputs.empty() ? at::Tensor() : outputs.front());
  double bytes = 0;
  if (!context.calls_others && !is_view(name, context.inputs, outputs)) {
    for (auto const& tensor : context.inputs) bytes += static_cast<double>(tensor.nbytes());
    for (auto const& tensor : outputs) bytes += static_cast<double>(tensor.nbytes());
  }
  std::lock_guard const held(guard);
  auto& stage = by_stage[context.stage];
  stage.flops += flops;
  stage.bytes += bytes;
  stage.operators += context.calls_others ? 0 : 1;
}

}  // namespace

OperatorCounts::OperatorCounts() {
  by_stage.clear();
  handle_ = at::addGlobalCallback(at::RecordFunctionCallback(on_start, on_end)
                                      .needsInputs(true)
                                      .needsOutputs(true)
                                      .scopes({at::RecordScope::FUNCTION}));
}

OperatorCounts::~OperatorCounts() { stop(); }

void OperatorCounts::stop() {
  if (handle_) at::removeCallback(*std::exchange(handle_, std::nullopt));
}

StageCounts OperatorCounts::of(std::string const& stage) const {
  std::lock_guard const held(guard);
  auto const found = by_stage.find(stage);
  return found == by_stage.end() ? StageCounts{} : found->second;
}

StageCounts OperatorCounts::sum() const {
  std::lock_guard const held(guard);
  StageCounts all;
  for (auto const& [stage, one] : by_stage) {
    all.flops += one.flops;
    all.bytes += one.bytes;
    all.operators += one.operators;
  }
  return all;
}

}  // namespace duoflow::launch
