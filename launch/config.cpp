#include "launch/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <tuple>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include "model/edit_distance.h"

namespace duoflow::launch {
namespace {

// Other spellings of a key -> the key. Both written out with different values is an error.
std::vector<std::pair<std::string, std::string>> const kAliases = {
    {"model.transformer.freeze_reconstructor_renderer", "training.freeze_reconstructor_renderer"},
    {"training.flow_loss_weight", "model.transformer.editor.flow_matching.velocity_loss_weight"},
    {"model.transformer.editor.flow_matching.flow_loss_weight",
     "model.transformer.editor.flow_matching.velocity_loss_weight"},
    {"training.LVSM_checkpoint_dir", "training.init_from"},
};

constexpr char const* kCommandLine = "command line";
std::string const kWeighting = "model.transformer.editor.flow_matching.weighting";
std::string const kNormalizeLosses = "model.transformer.editor.flow_matching.normalize_losses";

enum class WrittenBy { user, duoflow };

struct Leaf {
  std::string spelling;  // the key as the user wrote it
  YAML::Node value;
  std::string where;
};

void collect_leaves(YAML::Node const& node, std::string const& prefix, std::string const& origin,
                    std::vector<Leaf>& leaves) {
  std::set<std::string> names;
  for (auto const& item : node) {
    auto const name = item.first.as<std::string>();
    auto const key = prefix.empty() ? name : prefix + "." + name;
    auto const where = fmt::format("{}:{}", origin, item.first.Mark().line + 1);
    if (!names.insert(name).second) throw ConfigError(fmt::format("{}: {} is there twice; keep one", where, key));
    if (item.second.IsMap())
      collect_leaves(item.second, key, origin, leaves);
    else
      leaves.push_back({key, item.second, where});
  }
}

std::string const* unused_reason(std::string const& key) {
  for (auto const& [pattern, reason] : unused_keys()) {
    bool const section = pattern.ends_with(".*");
    auto const stem = section ? pattern.substr(0, pattern.size() - 2) : pattern;
    if (key == stem || (section && key.starts_with(stem + "."))) return &reason;
  }
  return nullptr;
}

class Loader {
 public:
  explicit Loader(Config& config) : config_(config), keys_(config_keys(config)) {}

  void apply(Leaf const& leaf) {
    auto name = leaf.spelling;
    for (auto const& [alias, key] : kAliases)
      if (leaf.spelling == alias) name = key;
    auto const found = std::find_if(keys_.begin(), keys_.end(), [&](ConfigKey const& k) { return k.name == name; });
    if (found == keys_.end()) return note_unused(leaf);
    set(*found, leaf);
  }

  // After each source (the file, then the command line): the spellings of one key must agree within it.
  void end_source() {
    for (auto const& [key, spellings] : said_) {
      auto const& [first, said_first] = *spellings.begin();
      for (auto const& [spelling, said] : spellings)
        if (said.value != said_first.value)
          throw ConfigError(fmt::format("{}: {} = {} contradicts {} = {} (they are one setting); keep one", said.where,
                                        spelling, said.value, first, said_first.value));
    }
    said_.clear();
  }

  std::set<std::string> const& overridden() const { return overridden_; }

 private:
  struct Said {
    std::string value, where;
  };

  void set(ConfigKey const& key, Leaf const& leaf) {
    if (leaf.value.IsNull() && leaf.where != kCommandLine) return;  // `key:` with nothing in a file keeps the default
    try {
      key.set(leaf.value);
    } catch (YAML::Exception const&) {
      throw ConfigError(fmt::format("{}: {} = {} is not a {} ({}); write one, for example {}", leaf.where,
                                    leaf.spelling, YAML::Dump(leaf.value), key.type, key.description, key.get()));
    }
    bool const again = !said_[key.name].insert_or_assign(leaf.spelling, Said{key.get(), leaf.where}).second;
    if (leaf.where == kCommandLine)
      overridden_.insert(key.name);  // the same spelling again: the later one wins
    else if (again)
      throw ConfigError(fmt::format("{}: {} is there twice; keep one", leaf.where, leaf.spelling));
    config_.written.insert(key.name);
  }

  // Unused keys whose value asks for another objective than the one that would run.
  static void refuse_dropped_request(Leaf const& leaf) {
    bool const noise = leaf.spelling == "training.flow_match.noise_scale" && leaf.value.as<double>(0) != 0;
    bool const no_render = leaf.spelling == "training.skip_renderer" && leaf.value.as<bool>(false);
    if (noise)
      throw ConfigError(fmt::format("{}: {} = {} (violated: 0, noisy paths are not in this version)", leaf.where,
                                    leaf.spelling, YAML::Dump(leaf.value)));
    if (no_render)
      throw ConfigError(fmt::format("{}: {}: true is spelled render_loss_weight: 0 here; write that instead",
                                    leaf.where, leaf.spelling));
  }

  void note_unused(Leaf const& leaf) {
    if (auto const* reason = unused_reason(leaf.spelling)) {
      refuse_dropped_request(leaf);
      config_.notes.push_back(fmt::format("{}: {} is not used ({})", leaf.where, leaf.spelling, *reason));
      return;
    }
    auto const near = nearest_key(leaf.spelling);
    throw ConfigError(fmt::format("{}: unknown key {} (it would be ignored silently); {}", leaf.where, leaf.spelling,
                                  fmt::format("did you mean {}? All keys are in docs/config.md", near)));
  }

  Config& config_;
  std::vector<ConfigKey> keys_;
  std::map<std::string, std::map<std::string, Said>> said_;  // by the source being read: key -> spelling -> value
  std::set<std::string> overridden_;                         // keys that the command line set
};

constexpr std::int64_t kReferenceEnvSize = 256;

// The reference's flow editor: what a YAML that names it gets unless it says otherwise.
void apply_reference_behaviour(Config& c) {
  if (c.class_name.find("FlowMatchEditor") == std::string::npos) {
    if (!c.class_name.empty())
      throw ConfigError(fmt::format(
          "model.class_name = {} is not a flow editor duoflow has (the reference's others have no velocity loss); "
          "name model.LVSM_flow_match_editor.FlowMatchEditor or leave it out",
          c.class_name));
    return;
  }
  if (c.class_name != "model.LVSM_flow_match_editor.FlowMatchEditor")
    throw ConfigError(
        fmt::format("model.class_name = {} is a variant of the flow editor that this version does not have; "
                    "model.LVSM_flow_match_editor.FlowMatchEditor is there",
                    c.class_name));
  std::string const e = "model.transformer.editor.";
  auto unless_written = [&](std::string const& key, auto& field, auto value) {
    if (!c.written.contains(key)) field = value;
  };
  unless_written(e + "time_scale", c.model.time_scale, 1.0);
  unless_written(e + "velocity_head", c.model.velocity_head, false);
  unless_written(e + "light_in_adaln", c.model.light_in_adaln, false);
  unless_written(e + "normalize_latents", c.model.normalize_latents, false);
  unless_written("training.freeze_reconstructor_renderer", c.training.freeze_reconstructor_renderer, false);
  std::string const env_size = "model.env_tokenizer.image_size";
  if (c.written.contains(env_size) && c.env_image_size != kReferenceEnvSize)
    c.notes.push_back(fmt::format("{} = {} is taken as {}: {} never reads that key", env_size, c.env_image_size,
                                  kReferenceEnvSize, c.class_name));
  c.env_image_size = kReferenceEnvSize;
}

template <class T>
void require(bool holds, char const* key, T const& value, char const* rule) {
  if (!holds)
    throw ConfigError(
        fmt::format("{} = {} (violated: {}); change it in the config or on the command line", key, value, rule));
}

void require_one_of(char const* key, std::string const& value, std::vector<std::string> const& valid,
                    char const* note = "") {
  if (std::find(valid.begin(), valid.end(), value) == valid.end())
    throw ConfigError(
        fmt::format("{} = {} (not one of: {}){}; choose one of them", key, value, fmt::join(valid, ", "), note));
}

void validate_model(Config const& c) {
  auto const& m = c.model;
  require(m.d > 0 && m.d_head > 0 && m.d % m.d_head == 0, "model.transformer.d", m.d, "a positive multiple of d_head");
  require(m.d % 2 == 0, "model.transformer.d", m.d, "even (time embedding)");
  require(m.patch_size > 0 && m.image_size > 0 && m.image_size % m.patch_size == 0, "model.image_tokenizer.image_size",
          m.image_size, "a positive multiple of patch_size");
  require(m.env_height > 0 && m.env_height % m.patch_size == 0, "model.env_tokenizer.image_size", m.env_height,
          "a positive multiple of patch_size");
  require(c.target_image_size == 0 || c.target_image_size == m.image_size, "model.target_pose_tokenizer.image_size",
          c.target_image_size, "equal to image_tokenizer.image_size");
  require(m.n_latent_vectors > 0, "model.transformer.n_latent_vectors", m.n_latent_vectors, "> 0");
  require(m.encoder_n_layer > 0 && m.decoder_n_layer > 0 && m.editor_n_layer > 0, "model.transformer.*_n_layer",
          m.editor_n_layer, "> 0");
}

// Terms of the render loss that have a weight.
bool has_image_term(TrainingConfig const& t) {
  return t.l2_loss_weight + t.l1_loss_weight + t.gradient_loss_weight + t.lpips_loss_weight + t.perceptual_loss_weight >
         0;
}

void validate_image_terms(Config const& c) {
  auto const& t = c.training;
  for (auto const& [key, weight] :
       {std::pair{"l2", t.l2_loss_weight}, std::pair{"l1", t.l1_loss_weight},
        std::pair{"gradient", t.gradient_loss_weight}, std::pair{"lpips", t.lpips_loss_weight},
        std::pair{"perceptual", t.perceptual_loss_weight}})
    require(weight >= 0 && std::isfinite(weight), fmt::format("training.{}_loss_weight", key).c_str(), weight, ">= 0");
  require(c.objective == "joint" || has_image_term(t), "training.l2_loss_weight", t.l2_loss_weight,
          "> 0 for one of the image terms (l2, l1, gradient, lpips, perceptual): reconstruction has no other loss");
  require_one_of("training.lpips_network", t.lpips_network, {"vgg", "alex"});
  require(t.perceptual_min_t >= 0 && t.perceptual_min_t < 1, "training.perceptual_min_t", t.perceptual_min_t,
          "in [0, 1): 1 would leave no sample");
  auto const smallest = t.lpips_loss_weight > 0 && t.lpips_network == "alex" ? 31 : 16;  // what the networks need
  auto const side = t.perceptual_crop > 0 ? t.perceptual_crop : c.model.image_size;
  require(t.perceptual_crop >= 0 && t.perceptual_crop <= c.model.image_size, "training.perceptual_crop",
          t.perceptual_crop, "at most model.image_tokenizer.image_size; 0: whole pictures");
  if (t.lpips_loss_weight + t.perceptual_loss_weight > 0)
    require(side >= smallest, t.perceptual_crop > 0 ? "training.perceptual_crop" : "model.image_tokenizer.image_size",
            side,
            "at least 16 pixels for VGG, 31 for AlexNet, with a training.lpips_loss_weight or perceptual_loss_weight");
}

void validate_training(Config const& c) {
  auto const& t = c.training;
  require(t.batch_size_per_gpu > 0, "training.batch_size_per_gpu", t.batch_size_per_gpu, "> 0");
  require(t.grad_accum_steps > 0, "training.grad_accum_steps", t.grad_accum_steps, "> 0");
  require(t.global_batch_size >= 0, "training.global_batch_size", t.global_batch_size, ">= 0");
  require(t.lr >= 0, "training.lr", t.lr, ">= 0");
  require(t.beta1 >= 0 && t.beta1 < 1, "training.beta1", t.beta1, "in [0, 1)");
  require(t.beta2 >= 0 && t.beta2 < 1, "training.beta2", t.beta2, "in [0, 1)");
  require(t.train_steps >= 0, "training.train_steps", t.train_steps, ">= 0");
  require(t.warmup >= 0, "training.warmup", t.warmup, ">= 0");
  require(t.num_input_views > 0, "training.num_input_views", t.num_input_views, "> 0");
  require(t.grad_clip_norm >= 0, "training.grad_clip_norm", t.grad_clip_norm, ">= 0");
  require(t.num_target_views > 0, "training.num_target_views", t.num_target_views, "> 0");
  require(t.print_every > 0, "training.print_every", t.print_every, "> 0");
  require(t.checkpoint_every > 0, "training.checkpoint_every", t.checkpoint_every, "> 0");
  require(t.keep_last > 0, "training.keep_last", t.keep_last, "> 0");
  require(t.keep_every >= 0, "training.keep_every", t.keep_every, ">= 0");
  require(t.weight_decay >= 0, "training.weight_decay", t.weight_decay, ">= 0");
  require(t.allowed_gradnorm_factor >= 0, "training.allowed_gradnorm_factor", t.allowed_gradnorm_factor,
          ">= 0; 0: any norm");
  require(t.max_skips_in_a_row > 0, "training.max_skips_in_a_row", t.max_skips_in_a_row, "> 0");
  require(t.max_hours >= 0, "training.max_hours", t.max_hours, ">= 0");
  require(t.vis_every >= 0, "training.vis_every", t.vis_every, ">= 0");
  require_one_of("training.scheduler_type", t.scheduler_type, {"cosine", "linear", "constant"});
  require_one_of("training.amp_dtype", t.amp_dtype, {"bf16"}, " - fp16 needs loss scaling, which is left out");
  validate_image_terms(c);
}

std::pair<double, double> clamp_of(FlowMatchingConfig const& f) {
  if (f.weight_clamp.empty()) return {0, 0};
  if (f.weight_clamp.size() == 1) return {0, f.weight_clamp[0]};
  return {f.weight_clamp[0], f.weight_clamp[1]};
}

void validate_flow(Config const& c) {
  auto const& f = c.flow;
  std::string const p = "model.transformer.editor.flow_matching.";
  require_one_of((p + "weighting").c_str(), f.weighting, {"fixed", "normalized", "schedule"});
  require_one_of((p + "statistics").c_str(), f.statistics, {"current", "lagged"});
  require_one_of((p + "schedule_form").c_str(), f.schedule_form, {"step", "linear"});
  require_one_of((p + "time_sampling").c_str(), f.time_sampling, {"uniform"});
  require_one_of((p + "ode_solver").c_str(), f.ode_solver, {"euler"});
  require(f.num_ode_steps > 0, (p + "num_ode_steps").c_str(), f.num_ode_steps, "> 0");
  require(f.weight_ema >= 0 && f.weight_ema < 1, (p + "weight_ema").c_str(), f.weight_ema, "in [0, 1)");
  require(f.weight_clamp.size() <= 2, (p + "weight_clamp").c_str(),
          fmt::format("[{}]", fmt::join(f.weight_clamp, ", ")), "at most two numbers");
  auto const [clamp_min, clamp_max] = clamp_of(f);
  require(clamp_min >= 0 && (clamp_max == 0 || clamp_max >= clamp_min), (p + "weight_clamp").c_str(),
          fmt::format("[{}]", fmt::join(f.weight_clamp, ", ")), "[min, max] with 0 <= min <= max, or max 0: no clamp");
  require(f.velocity_loss_weight >= 0, (p + "velocity_loss_weight").c_str(), f.velocity_loss_weight, ">= 0");
  require(f.render_loss_weight >= 0, (p + "render_loss_weight").c_str(), f.render_loss_weight, ">= 0");
  bool const renders = f.render_loss_weight > 0 && has_image_term(c.training);
  if (c.objective == "joint" && !renders && f.velocity_loss_weight == 0)
    throw ConfigError(
        fmt::format("{}velocity_loss_weight and render_loss_weight are both 0 (nothing is left to train); "
                    "give one of them a weight",
                    p));
  if (c.objective == "joint" && f.weighting == "normalized" && (!renders || f.velocity_loss_weight == 0))
    throw ConfigError(
        fmt::format("{}weighting = normalized compares the velocity and the render loss, but one of them "
                    "is off (velocity_loss_weight {}, render_loss_weight {}{}); "
                    "use weighting: fixed, or give both a weight",
                    p, f.velocity_loss_weight, f.render_loss_weight,
                    has_image_term(c.training) ? "" : ", training.l2_loss_weight and every other image term 0"));
}

void validate(Config& c) {
  require_one_of("objective", c.objective, {"reconstruction", "joint"});
  require_one_of("latents", c.latents, {"cached", "online"});
  validate_model(c);
  validate_training(c);
  validate_flow(c);
  require_one_of("data.verify", c.data.verify, {"first_touch", "always", "never"});
  require_one_of("data.light_encoding", c.data.light_encoding, {"lvsm", "cosmos", "raw"});
  require(c.data.threads > 0, "data.threads", c.data.threads, "> 0");
  parse_frames(c.data.input_frames, "data.input_frames");
  parse_frames(c.data.target_frames, "data.target_frames");
  require(c.dist.virtual_shards >= 0, "dist.virtual_shards", c.dist.virtual_shards, ">= 0");
  require(c.dist.zero == 0 || c.dist.zero == 1, "dist.zero", c.dist.zero, "0 or 1");
  require_one_of("dist.gradient_dtype", c.dist.gradient_dtype, {"f32", "bf16"});
  require(!c.dist.reproducible || c.dist.gradient_dtype == "f32", "dist.gradient_dtype", c.dist.gradient_dtype,
          "f32 with dist.reproducible: what bf16 rounds would depend on the rank count");
  require(c.dist.bucket_mib > 0, "dist.bucket_mib", c.dist.bucket_mib, "> 0");
  require(c.dist.first_bucket_mib > 0, "dist.first_bucket_mib", c.dist.first_bucket_mib, "> 0");
  require(c.dist.threads >= 0, "dist.threads", c.dist.threads, ">= 0");
  require(c.dist.timeout_s > 0, "dist.timeout_s", c.dist.timeout_s, "> 0");
  require(c.dist.step_timeout_s >= 0, "dist.step_timeout_s", c.dist.step_timeout_s, ">= 0");
  require_one_of("dist.device", c.dist.device, {"auto", "cpu", "cuda"});
}

// Known keys that the rest of this config leaves without effect.
void note_what_has_no_effect(Config& c) {
  auto const note = [&](bool idle, char const* key, char const* why) {
    if (idle && c.written.contains(key)) c.notes.push_back(fmt::format("{} has no effect ({})", key, why));
  };
  note(!c.dist.reproducible && c.dist.virtual_shards > 0, "dist.virtual_shards", "dist.reproducible is false");
  note(c.objective == "joint" && c.latents == "cached" && !c.data.exclude_lights.empty(), "data.exclude_lights",
       "the lights of cached latents were chosen when they were encoded");
  note(c.flow.weighting != "normalized" && c.flow.statistics != "current",
       "model.transformer.editor.flow_matching.statistics", "the weighting does not follow the losses");
  auto const& t = c.training;
  bool const networks = t.lpips_loss_weight + t.perceptual_loss_weight > 0;
  char const* const no_network = "training.lpips_loss_weight and training.perceptual_loss_weight are 0";
  note(!networks && t.perceptual_crop > 0, "training.perceptual_crop", no_network);
  note(!networks && t.perceptual_min_t > 0, "training.perceptual_min_t", no_network);
  note(networks && t.perceptual_min_t > 0 && c.objective == "reconstruction", "training.perceptual_min_t",
       "reconstruction has no times");
  note(t.lpips_loss_weight == 0 && !t.lpips_weights.empty(), "training.lpips_weights",
       "training.lpips_loss_weight is 0");
  note(t.perceptual_loss_weight == 0 && !t.perceptual_weights.empty(), "training.perceptual_weights",
       "training.perceptual_loss_weight is 0");
}

// normalize_losses says in other words whether weighting is `normalized`. Written in one place the two must agree; one
// on the command line wins over the other in the file. Afterwards they agree, so that the effective config loads again.
void settle_weighting(Config& c, std::set<std::string> const& overridden, WrittenBy writer) {
  auto& f = c.flow;
  bool const both = c.written.contains(kWeighting) && c.written.contains(kNormalizeLosses);
  if (both && f.normalize_losses != (f.weighting == "normalized")) {
    bool const new_weighting = overridden.contains(kWeighting), new_flag = overridden.contains(kNormalizeLosses);
    bool const left_as_given = writer == WrittenBy::duoflow && !new_flag;  // the flag, by runs of before this rule
    if (new_weighting == new_flag && !left_as_given)
      throw ConfigError(
          fmt::format("normalize_losses: {} contradicts weighting: {} (normalize_losses is the seed's spelling of "
                      "weighting: normalized); keep one",
                      f.normalize_losses, f.weighting));
    if (new_flag) f.weighting = f.normalize_losses ? "normalized" : "fixed";
  } else if (f.normalize_losses) {
    f.weighting = "normalized";
  }
  f.normalize_losses = f.weighting == "normalized";
}

void resolve(Config& c, std::set<std::string> const& overridden, WrittenBy writer) {
  apply_reference_behaviour(c);
  settle_weighting(c, overridden, writer);
  if (c.dist.reproducible) {  // nothing may follow from the rank count
    if (c.dist.virtual_shards == 0) c.dist.virtual_shards = 8;
    if (c.dist.threads == 0) c.dist.threads = 1;
  }
  note_what_has_no_effect(c);
  c.model.env_height = c.env_image_size;
  c.model.compute = c.training.use_amp ? model::ComputeType::bf16 : model::ComputeType::fp32;
  c.model.checkpoint_blocks = c.training.grad_checkpoint_every > 0;
}

}  // namespace

std::string nearest_key(std::string const& key) {
  Config scratch;
  std::string best;
  std::size_t best_distance = std::numeric_limits<std::size_t>::max();
  auto consider = [&](std::string const& candidate) {
    auto const distance = model::edit_distance(key, candidate);
    if (distance < best_distance) best = candidate, best_distance = distance;
  };
  for (auto const& valid : config_keys(scratch)) consider(valid.name);
  for (auto const& [alias, target] : kAliases) consider(alias);
  if (best_distance >= std::max<std::size_t>(3, key.size() / 3)) {  // the right name in the wrong section?
    auto const leaf = key.substr(key.rfind('.') + 1);
    for (auto const& valid : config_keys(scratch))
      if (valid.name.substr(valid.name.rfind('.') + 1) == leaf) return valid.name;
  }
  return best;
}

namespace {

Config parse(std::string const& yaml, std::string const& origin, std::vector<std::string> const& overrides,
             WrittenBy writer) {
  Config config;
  Loader loader(config);
  std::vector<Leaf> leaves;
  try {
    auto const root = YAML::Load(yaml);
    if (root.IsDefined() && !root.IsNull()) {
      if (!root.IsMap())
        throw ConfigError(fmt::format("{}: not a YAML mapping (a config is `key: value` lines)", origin));
      collect_leaves(root, "", origin, leaves);
    }
  } catch (YAML::Exception const& error) {
    throw ConfigError(fmt::format("{}: not valid YAML ({}); correct that line", origin, error.what()));
  }
  for (auto const& leaf : leaves) loader.apply(leaf);
  loader.end_source();
  for (auto const& text : overrides) {
    auto const equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      throw ConfigError(fmt::format("argument {} is not key=value (overrides look like training.lr=1e-3)", text));
    YAML::Node value{std::string()};  // `key=` empties a string
    try {
      if (equals + 1 < text.size()) value = YAML::Load(text.substr(equals + 1));
    } catch (YAML::Exception const& error) {
      throw ConfigError(fmt::format("override {} is not a YAML value ({})", text, error.what()));
    }
    loader.apply({text.substr(0, equals), value, kCommandLine});
  }
  loader.end_source();
  resolve(config, loader.overridden(), writer);
  validate(config);
  return config;
}

}  // namespace

Config parse_config(std::string const& yaml, std::string const& origin, std::vector<std::string> const& overrides) {
  return parse(yaml, origin, overrides, WrittenBy::user);
}

Config parse_stored_config(std::string const& yaml, std::string const& origin,
                           std::vector<std::string> const& overrides) {
  return parse(yaml, origin, overrides, WrittenBy::duoflow);
}

Config load_config(std::string const& path, std::vector<std::string> const& overrides) {
  std::ifstream file(path);
  if (!file || !std::filesystem::is_regular_file(path))
    throw ConfigError(fmt::format(
        "config {} cannot be read (missing, no file, or no permission); give an existing file with --config", path));
  std::stringstream text;
  text << file.rdbuf();
  return parse_config(text.str(), path, overrides);
}

namespace {

struct Section {
  std::string name, value;  // a leaf has a value, a section has parts
  std::vector<Section> parts;

  Section& part(std::string const& wanted) {
    for (auto& existing : parts)
      if (existing.name == wanted) return existing;
    return parts.emplace_back(Section{wanted, "", {}});
  }
  void print(std::string& text, std::size_t indent) const {
    for (auto const& item : parts) {
      text += std::string(indent, ' ') + item.name + ":" + (item.parts.empty() ? " " + item.value : "") + "\n";
      item.print(text, indent + 2);
    }
  }
};

}  // namespace

std::string effective_yaml(Config const& config) {
  Config copy = config;
  Section root;
  for (auto const& key : config_keys(copy)) {
    std::stringstream path(key.name);
    Section* section = &root;
    for (std::string part; std::getline(path, part, '.');) section = &section->part(part);
    section->value = key.get();
  }
  std::string text;
  root.print(text, 0);
  return text;
}

std::string config_table_markdown() {
  Config defaults;
  std::string text =
      "# Keys of the configuration\n\nMade from the table of keys in `launch/config_keys.cpp`; a test holds the two "
      "equal. A dot is a level of the YAML file;\n"
      "`key=value` on the command line comes last and wins.\n\n| key | type | default | meaning |\n|---|---|---|---|\n";
  for (auto const& key : config_keys(defaults))
    text += fmt::format("| `{}` | {} | `{}` | {} |\n", key.name, key.type, key.get(), key.description);
  text += "\n| spelling | is |\n|---|---|\n";
  for (auto const& [alias, key] : kAliases) text += fmt::format("| `{}` | `{}` |\n", alias, key);
  text += "\n| known, not used | why |\n|---|---|\n";
  for (auto const& [key, reason] : unused_keys()) text += fmt::format("| `{}` | {} |\n", key, reason);
  return text;
}

std::vector<std::int64_t> parse_frames(std::string const& text, std::string const& key) {
  std::vector<std::int64_t> frames;
  std::stringstream stream(text);
  auto number = [&](std::string const& part) {
    std::int64_t value = -1;
    auto const [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || value < 0)
      throw ConfigError(
          fmt::format("{} = {} (\"{}\" is not a frame number); write for example 0,4,8-11", key, text, part));
    return value;
  };
  for (std::string part; std::getline(stream, part, ',');) {
    auto const dash = part.find('-');
    auto const first = number(part.substr(0, dash));
    auto const last = dash == std::string::npos ? first : number(part.substr(dash + 1));
    if (last < first) throw ConfigError(fmt::format("{} = {} (range {} runs backwards)", key, text, part));
    for (auto frame = first; frame <= last; ++frame) frames.push_back(frame);
  }
  return frames;
}

model::WeightingOptions weighting_options(Config const& config) {
  auto const& f = config.flow;
  model::WeightingOptions options;
  options.name = f.weighting;
  std::tie(options.clamp_min, options.clamp_max) = clamp_of(f);
  options.ema = f.weight_ema;
  options.lagged = f.statistics == "lagged";
  options.warmup_steps = f.warmup_steps;
  options.schedule_form = f.schedule_form;
  options.velocity_start = f.velocity_start;
  options.velocity_end = f.velocity_end;
  options.render_start = f.render_start;
  options.render_end = f.render_end;
  return options;
}

}  // namespace duoflow::launch
