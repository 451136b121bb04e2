#include "launch/profile/operator_counts.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>

#include "launch/profile/stages.h"

namespace duoflow::launch {
namespace {

std::mutex guard;
std::map<std::string, std::map<std::string, StageCounts>> by_stage;  // and by operator; under guard

using Inputs = std::vector<at::Tensor>;  // the tensor arguments, in order

double elements(at::Tensor const& x) { return static_cast<double>(x.numel()); }
double side(at::Tensor const& x, std::int64_t dimension) { return static_cast<double>(x.size(dimension)); }

struct Flops {
  double ran = 0, useful = 0;
};
Flops all_of(double flops) { return {flops, flops}; }

Flops product(Inputs const& in, std::size_t first) { return all_of(2 * elements(in[first]) * side(in[first + 1], -1)); }

double attention_product(Inputs const& in, std::size_t query) { return 2 * elements(in[query]) * side(in[query + 1], -2); }

// in: input, weight. A filter's products for every output pixel; the padding's are counted too.
double convolution(Inputs const& in, at::Tensor const& output) {
  return 2 * elements(output) * elements(in[1]) / side(in[1], 0);
}

Flops flops_of(std::string_view name, Inputs const& in, at::Tensor const& out) {
  if (name == "aten::mm" || name == "aten::bmm") return in.size() < 2 ? Flops{} : product(in, 0);
  if (name == "aten::addmm" || name == "aten::baddbmm") return in.size() < 3 ? Flops{} : product(in, 1);
  if (name.find("dot_product") != name.npos && name.find("_attention") != name.npos && in.size() >= 3) {
    // Two products forward; backward a gradient for each factor of the two, and the scores once more. in[0] there: the
    // gradient of the result.
    if (name.find("backward") == name.npos) return all_of(2 * attention_product(in, 0));
    return {5 * attention_product(in, 1), 4 * attention_product(in, 1)};
  }
  if ((name == "aten::mkldnn_convolution" || name == "aten::cudnn_convolution" || name == "aten::thnn_conv2d") && in.size() >= 2 &&
      out.defined())
    return all_of(convolution(in, out));
  if (name == "aten::convolution_backward" && in.size() >= 3) return all_of(2 * convolution({in[1], in[2]}, in[0]));
  return {};
}

Inputs tensors_of(c10::IValue const& value) {
  Inputs tensors;
  if (value.isTensor() && value.toTensor().defined()) tensors.push_back(value.toTensor());
  if (value.isTensorList())
    for (at::Tensor const& tensor : value.toTensorVector()) tensors.push_back(tensor);
  return tensors;
}

template <typename Values>
Inputs all_tensors_of(Values const& values) {
  Inputs all;
  for (auto const& value : values)
    for (at::Tensor const& tensor : tensors_of(value)) all.push_back(tensor);
  return all;
}

double bytes_of(Inputs const& tensors) {
  double bytes = 0;
  for (at::Tensor const& tensor : tensors) bytes += static_cast<double>(tensor.nbytes());
  return bytes;
}

bool only_makes_room(std::string_view name) {
  return name.find("::empty") != name.npos || name.find("::new_empty") != name.npos || name == "aten::resize_" || name == "aten::set_";
}

// Its first argument is not read.
bool overwrites(std::string_view name) { return name == "aten::copy_" || name == "aten::fill_" || name == "aten::zero_"; }

// Of model/fused: they say what they move themselves, whatever they call.
bool is_ours(std::string_view name) { return name.starts_with("duoflow::"); }

// One that calls others moves nothing by itself, unless it is one of ours.
struct Running : at::ObserverContext {
  Running* outer = nullptr;
  bool calls_others = false, flops_inside = false, again = false;
  std::string stage;
  Inputs inputs;
  std::optional<at::FunctionSchema> schema;  // of ATen's
  double argument_bytes = 0;                 // read, and written where an argument is
};
thread_local Running* running = nullptr;

double argument_bytes(at::RecordFunction const& call, at::FunctionSchema const& schema) {
  auto const values = call.inputs();
  double bytes = 0;
  for (std::size_t i = 0; i < values.size() && i < schema.arguments().size(); ++i) {
    auto const& argument = schema.arguments()[i];
    double const own = bytes_of(tensors_of(values[i]));
    bool const written = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    bool const read = !argument.is_out() && !(i == 0 && overwrites(call.name()));
    bytes += (read ? own : 0) + (written ? own : 0);
  }
  return bytes;
}

std::unique_ptr<at::ObserverContext> on_start(at::RecordFunction const& call) {
  auto schema = call.operator_schema();
  if (!schema && !is_ours(call.name())) return nullptr;  // a mark inside an operator
  auto context = std::make_unique<Running>();
  context->outer = running;
  context->stage = StageTimeline::current();
  context->again = StageTimeline::again();
  context->inputs = all_tensors_of(call.inputs());
  context->schema = std::move(schema);
  context->argument_bytes = context->schema ? argument_bytes(call, *context->schema) : bytes_of(context->inputs);
  if (running != nullptr) running->calls_others = true;
  running = context.get();
  return context;
}

bool returns_what_it_writes_into(Running const& context) {
  if (!context.schema) return false;
  auto const& results = context.schema->returns();
  return std::any_of(results.begin(), results.end(), [](at::Argument const& result) {
    return result.alias_info() != nullptr && result.alias_info()->isWrite();
  });
}

bool is_view(Running const& context, Inputs const& results) {
  for (auto const& o : results)
    for (auto const& i : context.inputs)
      if (o.has_storage() && i.has_storage() && o.is_alias_of(i)) return true;
  return false;
}

void on_end(at::RecordFunction const& call, at::ObserverContext* plain) {
  if (plain == nullptr) return;
  auto& context = *static_cast<Running*>(plain);
  running = context.outer;
  auto const results = all_tensors_of(call.outputs());
  std::string_view const name = call.name();
  auto const flops = context.flops_inside ? Flops{} : flops_of(name, context.inputs, results.empty() ? at::Tensor() : results.front());
  if (running != nullptr && (context.flops_inside || flops.ran > 0)) running->flops_inside = true;
  bool const counts = !context.calls_others || is_ours(name), in_arguments = returns_what_it_writes_into(context);
  bool const nothing = !counts || only_makes_room(name) || (!is_ours(name) && !in_arguments && is_view(context, results));
  double const bytes = context.argument_bytes + (in_arguments ? 0 : bytes_of(results));
  std::lock_guard const held(guard);
  by_stage[context.stage][std::string(name)] += {flops.ran, context.again ? 0 : flops.useful, nothing ? 0 : bytes, counts ? 1 : 0};
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

StageCounts& StageCounts::operator+=(StageCounts const& other) {
  flops += other.flops;
  useful += other.useful;
  bytes += other.bytes;
  operators += other.operators;
  return *this;
}

std::map<std::string, StageCounts> OperatorCounts::operators_of(std::string const& stage) const {
  std::lock_guard const held(guard);
  auto const found = by_stage.find(stage);
  return found == by_stage.end() ? std::map<std::string, StageCounts>() : found->second;
}

StageCounts OperatorCounts::of(std::string const& stage) const {
  StageCounts all;
  for (auto const& [name, one] : operators_of(stage)) all += one;
  return all;
}

StageCounts OperatorCounts::sum() const {
  std::lock_guard const held(guard);
  StageCounts all;
  for (auto const& [stage, operators] : by_stage)
    for (auto const& [name, one] : operators) all += one;
  return all;
}

}  // namespace duoflow::launch
