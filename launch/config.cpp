#include "launch/config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include "launch/config_leaves.h"
#include "launch/config_resolution.h"
#include "launch/config_validation.h"
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
    {"training.flow_match.inference_steps", "model.transformer.editor.flow_matching.num_ode_steps"},
    {"training.flow_match.inference_method", "model.transformer.editor.flow_matching.ode_solver"},
    {"training.flow_match.noise_scale", "model.transformer.editor.flow_matching.path_sigma"},
};

constexpr char const* kCommandLine = "command line";
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
    if (leaf.spelling == "training.skip_renderer" && leaf.value.as<bool>(false))
      return set(key_ending_with(".render_loss_weight"), {leaf.spelling, YAML::Node(0), leaf.where});
    if (leaf.spelling == "training.recon_only" && leaf.value.as<bool>(false))
      return set(key_ending_with("objective"), {leaf.spelling, YAML::Node("reconstruction"), leaf.where});
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

  ConfigKey const& key_ending_with(std::string const& end) const {
    return *std::find_if(keys_.begin(), keys_.end(), [&](ConfigKey const& k) { return k.name.ends_with(end); });
  }

  // As the reference reads them: a name or a list, nothing meaning maps.
  static bool asks_for_light_maps(YAML::Node const& signals) {
    auto const names =
        signals.IsSequence() ? signals.as<std::vector<std::string>>() : std::vector{signals.as<std::string>("")};
    auto const has = [&](char const* name) { return std::find(names.begin(), names.end(), name) != names.end(); };
    return has("envmap") || !has("point_light");
  }

  // Unused keys whose value asks for another objective than the one that would run.
  static void refuse_dropped_request(Leaf const& leaf) {
    if (leaf.spelling == "training.relight_signals" && !asks_for_light_maps(leaf.value))
      throw ConfigError(
          fmt::format("{}: {} asks for point lights alone, which are left out (the editor would see no "
                      "light); take a config with envmap among them",
                      leaf.where, leaf.spelling));
    bool const dpt = leaf.spelling == "model.decoder_head.type" && leaf.value.as<std::string>("") != "mlp";
    if (dpt)
      throw ConfigError(fmt::format("{}: {} = {} (violated: mlp, the plain head is the one there is)", leaf.where,
                                    leaf.spelling, YAML::Dump(leaf.value)));
  }

  void note_unused(Leaf const& leaf) {
    if (auto const* reason = unused_reason(leaf.spelling)) {
      refuse_dropped_request(leaf);
      if (leaf.spelling.ends_with(".use_residual_mode")) config_.residual_mode = leaf.value.as<bool>(false);
      config_.notes.push_back(fmt::format("{}: {} is not used ({})", leaf.where, leaf.spelling, *reason));
      return;
    }
    if (!config_.class_name.empty()) reference_editor(config_.class_name);  // another class has other keys: say that
    auto const near = nearest_key(leaf.spelling);
    throw ConfigError(fmt::format("{}: unknown key {} (it would be ignored silently); {}", leaf.where, leaf.spelling,
                                  fmt::format("did you mean {}? All keys are in docs/config.md", near)));
  }

  Config& config_;
  std::vector<ConfigKey> keys_;
  std::map<std::string, std::map<std::string, Said>> said_;  // by the source being read: key -> spelling -> value
  std::set<std::string> overridden_;                         // keys that the command line set
};

}  // namespace

std::string nearest_key(std::string const& key) {
  constexpr std::size_t longest = 200;  // the comparison takes the product of two lengths
  if (key.size() > longest) return nearest_key(key.substr(0, longest));
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
  for (auto const& leaf : read_leaves(yaml, origin)) loader.apply(leaf);
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
  resolve_config(config, loader.overridden(), writer);
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
  std::error_code ignored;
  bool const is_file = std::filesystem::is_regular_file(path, ignored);  // first: opening a pipe waits for a writer
  std::ifstream file(is_file ? path : std::string());
  if (!file)
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

}  // namespace duoflow::launch
