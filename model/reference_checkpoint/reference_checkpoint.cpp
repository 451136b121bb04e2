#include "model/reference_checkpoint/reference_checkpoint.h"

#include <set>
#include <string_view>

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace duoflow::model {
namespace {

using Kind = PickleNode::Kind;

[[noreturn]] void unexpected(std::string const& what, PickleNode const* node, char const* wanted) {
  throw FormatError(
      fmt::format("{} is {} ({} belongs there); give a checkpoint of the LVSM family's training code or a state dict",
                  what, node == nullptr ? "missing" : fmt::format("a {}", kind_name(node->kind)), wanted));
}

PickleNode const& part(PickleNode const& parent, std::string const& name, std::string const& where, Kind kind,
                       char const* wanted) {
  auto const* node = parent.get(name);
  if (node == nullptr || node->kind != kind) unexpected(fmt::format("{}[\"{}\"]", where, name), node, wanted);
  return *node;
}

double number(PickleNode const& parent, std::string const& name, std::string const& where) {
  auto const* node = parent.get(name);
  if (node == nullptr || (node->kind != Kind::real && node->kind != Kind::integer))
    unexpected(fmt::format("{}[\"{}\"]", where, name), node, "a number");
  return node->real;
}

// Counts of steps: beyond this they are damage, and would leave 63 bits when multiplied by a batch.
constexpr std::int64_t kMostSteps = std::int64_t{1} << 40;

double step_count(double value, std::string const& where) {
  if (!(value >= 0 && value <= static_cast<double>(kMostSteps)))
    throw FormatError(fmt::format("{} is {} (a count of steps belongs there); give another checkpoint", where, value));
  return value;
}

bool flag(PickleNode const& parent, std::string const& name) {
  auto const* node = parent.get(name);
  return node != nullptr && node->kind == Kind::boolean && node->integer != 0;
}

std::string without_wrapper(std::string_view name) {
  constexpr std::string_view wrapper = "module.";
  while (name.starts_with(wrapper)) name.remove_prefix(wrapper.size());
  return std::string(name);
}

// A state dict of its own, or the file's "model".
PickleNode const& state_dict_of(TorchFile const& file) {
  auto const& root = file.root();
  if (root.kind != Kind::dict) unexpected("the file's content", &root, "a dict");
  auto const* model = root.get("model");
  if (model != nullptr && model->kind == Kind::dict) return *model;
  for (auto const& [key, value] : root.entries)
    if (key->kind == Kind::text && value->kind == Kind::tensor) return root;
  unexpected("model", model, "a state dict");
}

NamedTensors read_state_dict(TorchFile& file) {
  NamedTensors tensors;
  std::set<std::string> names;
  for (auto const& [key, value] : state_dict_of(file).entries) {
    if (key->kind != Kind::text) unexpected("a key of the state dict", key, "a name");
    auto const name = without_wrapper(key->text);
    if (!names.insert(name).second)
      throw FormatError(fmt::format(
          "{} is twice in the state dict, with and without \"module.\"; save it again from one model", name));
    tensors.emplace_back(name, file.tensor(*value, name));
  }
  if (tensors.empty()) throw FormatError("the state dict is empty; give a checkpoint that holds a model");
  return tensors;
}

ReferenceOptimizer::Group read_group(PickleNode const& node, std::string const& where) {
  if (node.kind != Kind::dict) unexpected(where, &node, "a dict");
  ReferenceOptimizer::Group group;
  group.lr = number(node, "lr", where);
  group.initial_lr = node.get("initial_lr") == nullptr ? group.lr : number(node, "initial_lr", where);
  auto const* betas = node.get("betas");
  auto const is_number = [](PickleNode const* item) { return item->kind == Kind::real || item->kind == Kind::integer; };
  if (betas == nullptr || betas->items.size() != 2 || !is_number(betas->items[0]) || !is_number(betas->items[1]))
    unexpected(where + "[\"betas\"]", betas, "a pair of numbers");
  group.beta1 = betas->items[0]->real;
  group.beta2 = betas->items[1]->real;
  group.eps = number(node, "eps", where);
  group.weight_decay = number(node, "weight_decay", where);
  group.amsgrad = flag(node, "amsgrad");
  group.maximize = flag(node, "maximize");
  for (auto const* index : part(node, "params", where, Kind::list, "a list").items) {
    if (index->kind != Kind::integer) unexpected(where + "[\"params\"]", index, "a number");
    group.parameters.push_back(index->integer);
  }
  return group;
}

ReferenceOptimizer read_optimizer(TorchFile& file, PickleNode const& node) {
  ReferenceOptimizer optimizer;
  for (auto const* group : part(node, "param_groups", "optimizer", Kind::list, "a list").items)
    optimizer.groups.push_back(
        read_group(*group, fmt::format("optimizer[\"param_groups\"][{}]", optimizer.groups.size())));
  for (auto const& [key, value] : part(node, "state", "optimizer", Kind::dict, "a dict").entries) {
    if (key->kind != Kind::integer) unexpected("a key of optimizer[\"state\"]", key, "a parameter's number");
    auto const where = fmt::format("optimizer[\"state\"][{}]", key->integer);
    ReferenceOptimizer::State state;
    auto const* step = value->get("step");
    if (step != nullptr && step->kind == Kind::tensor) {
      auto const count = file.tensor(*step, where + "[\"step\"]");
      if (count.numel() != 1) unexpected(where + "[\"step\"]", step, "one number");
      state.step = count.item<double>();  // read from a file: it is on the host
    } else {
      state.step = number(*value, "step", where);
    }
    step_count(state.step, where + "[\"step\"]");
    state.exp_avg = file.tensor(part(*value, "exp_avg", where, Kind::tensor, "a tensor"), where + "[\"exp_avg\"]");
    state.exp_avg_sq =
        file.tensor(part(*value, "exp_avg_sq", where, Kind::tensor, "a tensor"), where + "[\"exp_avg_sq\"]");
    if (!optimizer.state.emplace(key->integer, std::move(state)).second)
      throw FormatError(fmt::format("{} is twice in the file; save it again", where));
  }
  return optimizer;
}

std::int64_t counter(PickleNode const& root, std::string const& name) {
  auto const* node = root.get(name);
  if (node == nullptr) return 0;
  if (node->kind != Kind::integer) unexpected(name, node, "a count");
  return static_cast<std::int64_t>(step_count(node->real, name));
}

void write_optimizer(TorchWriter& out, ReferenceOptimizer const& optimizer) {
  out.begin_dict();
  out.text("state");
  out.begin_dict();
  for (auto const& [index, state] : optimizer.state) {
    out.integer(index);
    out.begin_dict();
    out.text("step");
    out.tensor(at::full({}, state.step, at::TensorOptions(at::kFloat)));
    out.text("exp_avg");
    out.tensor(state.exp_avg);
    out.text("exp_avg_sq");
    out.tensor(state.exp_avg_sq);
    out.end_dict();
  }
  out.end_dict();
  out.text("param_groups");
  out.begin_list();
  for (auto const& group : optimizer.groups) {
    out.begin_dict();
    auto const real = [&out](char const* name, double value) { out.text(name), out.real(value); };
    auto const boolean = [&out](char const* name, bool value) { out.text(name), out.boolean(value); };
    real("lr", group.lr);
    out.text("betas");
    out.begin_tuple();
    out.real(group.beta1);
    out.real(group.beta2);
    out.end_tuple();
    real("eps", group.eps);
    real("weight_decay", group.weight_decay);
    boolean("amsgrad", group.amsgrad);
    boolean("maximize", group.maximize);
    out.text("foreach");
    out.none();
    boolean("capturable", false);
    boolean("differentiable", false);
    boolean("fused", true);  // as the family's code makes it; loading sets it
    boolean("decoupled_weight_decay", true);
    real("initial_lr", group.initial_lr);
    out.text("params");
    out.begin_list();
    for (auto const index : group.parameters) out.integer(index);
    out.end_list();
    out.end_dict();
  }
  out.end_list();
  out.end_dict();
}

// What LambdaLR.state_dict() holds, two groups with a callable each.
void write_scheduler(TorchWriter& out, std::vector<ReferenceOptimizer::Group> const& groups, std::int64_t steps) {
  auto const reals = [&](char const* name, double ReferenceOptimizer::Group::*member) {
    out.text(name);
    out.begin_list();
    for (auto const& group : groups) out.real(group.*member);
    out.end_list();
  };
  out.begin_dict();
  reals("base_lrs", &ReferenceOptimizer::Group::initial_lr);
  out.text("last_epoch");
  out.integer(steps);
  out.text("_step_count");
  out.integer(steps + 1);
  out.text("_is_initial");
  out.boolean(false);
  out.text("_get_lr_called_within_step");
  out.boolean(false);
  reals("_last_lr", &ReferenceOptimizer::Group::lr);
  out.text("lr_lambdas");
  out.begin_list();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    out.begin_dict();
    out.end_dict();
  }
  out.end_list();
  out.end_dict();
}

}  // namespace

ReferenceCheckpoint read_reference_checkpoint(ByteSource const& source) {
  TorchFile file(source);
  ReferenceCheckpoint checkpoint;
  checkpoint.model = read_state_dict(file);
  auto const& root = file.root();
  checkpoint.forward_passes = counter(root, "fwdbwd_pass_step");
  checkpoint.updates = counter(root, "param_update_step");
  if (auto const* optimizer = root.get("optimizer"); optimizer != nullptr && optimizer->kind == Kind::dict)
    checkpoint.optimizer = read_optimizer(file, *optimizer);
  if (auto const* scheduler = root.get("lr_scheduler"); scheduler != nullptr && scheduler->kind == Kind::dict)
    checkpoint.scheduler_steps = static_cast<std::int64_t>(step_count(
        part(*scheduler, "last_epoch", "lr_scheduler", Kind::integer, "a count").real, "lr_scheduler[\"last_epoch\"]"));
  return checkpoint;
}

NamedTensors read_reference_weights(ByteSource const& source) {
  TorchFile file(source);
  return read_state_dict(file);
}

void write_reference_checkpoint(ReferenceCheckpoint const& checkpoint, TorchWriter::Sink const& sink) {
  TorchWriter out;
  out.begin_dict();
  out.text("model");
  out.begin_dict();
  for (auto const& [name, tensor] : checkpoint.model) {
    out.text(name);
    out.tensor(tensor);
  }
  out.end_dict();
  if (checkpoint.optimizer) {
    out.text("optimizer");
    write_optimizer(out, *checkpoint.optimizer);
    out.text("lr_scheduler");
    write_scheduler(out, checkpoint.optimizer->groups, checkpoint.scheduler_steps.value_or(checkpoint.updates));
    out.text("fwdbwd_pass_step");
    out.integer(checkpoint.forward_passes);
    out.text("param_update_step");
    out.integer(checkpoint.updates);
  }
  out.end_dict();
  out.write(sink);
}

std::vector<std::string> optimizer_order(NamedTensors const& parameters) {
  std::vector<std::string> order;
  for (bool const one_dimensional : {false, true})
    for (auto const& [name, tensor] : parameters)
      if ((tensor.dim() == 1) == one_dimensional) order.push_back(name);
  return order;
}

}  // namespace duoflow::model
