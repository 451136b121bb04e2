#pragma once
// Config: YAML read once into plain structs. The key table in config_keys.cpp is the one list of keys: parsing,
// overrides, the effective config, the documentation table and "did you mean" all come from it.
//
// Keys of the LVSM family's YAML keep their names (reference/method.md 1.4); a YAML that names one of the reference's
// flow-editor classes in model.class_name gets the reference's behaviour wherever duoflow's default departs from it,
// unless the key is written out.

#include <cstdint>
#include <functional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/order/skipped_positions.h"
#include "model/flow/solver.h"
#include "model/flow/time_sampling.h"
#include "model/loss/weighting.h"
#include "model/options.h"

namespace YAML {
class Node;
}

namespace duoflow::launch {

// A wrong command line or config. Exit code 2.
struct ConfigError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct TrainingConfig {
  std::int64_t batch_size_per_gpu = 8, grad_accum_steps = 1, global_batch_size = 0;
  double lr = 4e-4, beta1 = 0.9, beta2 = 0.95, weight_decay = 0.05;
  double grad_clip_norm = 5.0, allowed_gradnorm_factor = 200;
  std::int64_t train_steps = 100000, warmup = 3000;
  std::string scheduler_type = "cosine";
  std::int64_t num_input_views = 4, num_target_views = 8;
  bool target_has_input = true;
  double l2_loss_weight = 1, lpips_loss_weight = 0, perceptual_loss_weight = 0;
  double l1_loss_weight = 0, gradient_loss_weight = 0;
  std::string lpips_network = "vgg", lpips_weights, perceptual_weights;  // weights: safetensors files
  double perceptual_min_t = 0;
  std::int64_t perceptual_crop = 0;
  bool use_amp = false, cuda_graph = false;
  std::string amp_dtype = "bf16", attention_backend = "measured";
  std::int64_t print_every = 10, checkpoint_every = 1000, vis_every = 0;
  std::int64_t grad_checkpoint_every = 0;
  std::string grad_checkpoint_part = "block";
  std::int64_t render_view_chunk = 0;
  std::uint64_t seed = 777;
  int keep_last = 3;
  std::int64_t keep_every = 0;
  bool checkpoint_async = true;
  std::string checkpoint_busy = "wait", checkpoint_failure = "stop", stop_file;
  std::int64_t eval_every = 0, eval_pairs = 32;
  std::string eval_data;
  bool keep_best = false;
  std::string init_from, init_weights = "auto";
  bool freeze_reconstructor_renderer = true;
  std::vector<std::string> freeze;    // globs on parameter keys
  std::vector<std::string> lr_scale;  // GLOB=FACTOR
  double layer_lr_decay = 1;
  double ema_decay = 0;
  bool ema_warmup = true;
  double light_dropout = 0;
  double collapse_guard = 0.1;
  std::string collapse_action = "warn";
  int max_skips_in_a_row = 20;
  double max_hours = 0;
};

struct FlowMatchingConfig {
  double velocity_loss_weight = 1, render_loss_weight = 1;
  bool normalize_losses = true;
  std::string weighting = "normalized", statistics = "current";
  std::vector<double> weight_clamp = {0.001, 10};  // {} off, {max} or {min, max}
  double weight_ema = 0.9;
  std::int64_t warmup_steps = 1000;
  std::string schedule_form = "step";
  double velocity_start = 2.0, velocity_end = 0.5, render_start = 0.5, render_end = 2.0;
  std::int64_t velocity_only_steps = 1000, alternating_period = 1;
  double uncertainty_lr = 0.01;
  std::string gradient_space = "v_pred";
  std::int64_t gradient_interval = 50, balance_hint_every = 1000;
  std::string time_sampling = "early_bias";
  double time_mean = 0, time_deviation = 1, time_mode_scale = 1.29, time_shift = 1;
  std::vector<double> discrete_times;
  std::string path = "linear";
  double path_sigma = 0;
  std::string ode_solver = "euler";
  std::int64_t num_ode_steps = 4;
  double ode_rtol = 1e-4, ode_atol = 1e-5;
};

struct DataConfig {
  int threads = 1;
  std::string verify = "first_touch";
  bool allow_other_producer = false;
  std::string input_frames, target_frames;  // "0,4,8-11"; empty: drawn from all
  std::string camera_frame = "inputs";
  std::string exclude_lights;               // glob; empty: none
  std::string light_encoding = "lvsm";
  std::string shuffle = "full";
  double shuffle_block_mib = 256, shuffle_window_mib = 16384;
  std::vector<std::string> skip;  // positions of the order: "FIRST-LAST"
  bool log_samples = false;
};

struct DistConfig {
  bool reproducible = false;
  std::int64_t virtual_shards = 0;
  int zero = 0;
  std::string gradient_dtype = "f32";
  double bucket_mib = 25, first_bucket_mib = 1, timeout_s = 600, step_timeout_s = 0;
  int threads = 0;
  std::string device = "auto";
};

struct Config {
  std::string objective = "joint", latents = "cached", class_name, editor_kind = "flow";
  std::string editor_init = "zero", editor_init_checkpoint;
  bool residual_mode = false;  // the reference's use_residual_mode: what its residual class does
  std::int64_t env_image_size = 32, target_image_size = 0;
  model::ModelOptions model;
  TrainingConfig training;
  FlowMatchingConfig flow;
  DataConfig data;
  DistConfig dist;
  std::set<std::string> written;   // keys that the file or an override set
  std::vector<std::string> notes;  // known keys that duoflow does not act on, with the reason
};

struct ConfigKey {
  std::string name, type, description;
  std::function<void(YAML::Node const&)> set;  // throws std::invalid_argument-like YAML errors on a wrong type
  std::function<std::string()> get;            // YAML spelling of the value
};
// Every key duoflow acts on, bound to this object.
std::vector<ConfigKey> config_keys(Config& config);
// The LVSM family's keys that duoflow does not act on -> reason. A trailing ".*" covers a whole section.
std::vector<std::pair<std::string, std::string>> const& unused_keys();

// Reads a file, applies `key=value` overrides, resolves aliases and reference behaviour, validates. Throws ConfigError.
Config load_config(std::string const& path, std::vector<std::string> const& overrides);
Config parse_config(std::string const& yaml, std::string const& origin, std::vector<std::string> const& overrides);
// The effective config of a checkpoint, earlier builds' too: they could write normalize_losses: false beside weighting:
// normalized, which in a user's file contradicts itself.
Config parse_stored_config(std::string const& yaml, std::string const& origin,
                           std::vector<std::string> const& overrides);
// Of a run that goes on, `begun` being its effective config: where that had the plain objective (weighting fixed, uniform
// times, all of a residual head's output), as earlier builds had it where no key said, it stays unless a key says otherwise.
void keep_plain_objective(Config& config, Config const& begun);
std::string effective_yaml(Config const& config);
std::string config_table_markdown();
// The closest valid key by edit distance, or "" if none is near.
std::string nearest_key(std::string const& key);

// "0,4,8-11" -> {0,4,8,9,10,11}; ConfigError naming `key`.
std::vector<std::int64_t> parse_frames(std::string const& text, std::string const& key);
// data.camera_frame: over inputs and targets, not the inputs alone.
inline bool normalises_over_targets(Config const& config) { return config.data.camera_frame == "all"; }
// Of data.skip; ConfigError for an entry that is neither FIRST-LAST nor a number.
data::SkippedPositions skipped_positions(Config const& config);
model::WeightingOptions weighting_options(Config const& config);
model::TimeSampling time_sampling(FlowMatchingConfig const& config);
model::SolverOptions solver_options(FlowMatchingConfig const& config);

}  // namespace duoflow::launch
