#include <unistd.h>

#include <algorithm>
#include <random>
#include <set>
#include <stdexcept>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "dist/checkpoint/checkpoint.h"
#include "dist/checkpoint/file_io.h"
#include "dist/checkpoint/folders.h"
#include "dist/checkpoint/layout.h"
#include "dist/checkpoint/manifest.h"
#include "dist/checkpoint/safetensors_file.h"
#include "dist/checkpoint/xxh3.h"
#include "dist/error.h"

namespace duoflow::dist {
namespace {

using Json = nlohmann::ordered_json;

std::string const& this_host() {
  static std::string const name = [] {
    char buffer[256] = "";
    return std::string(::gethostname(buffer, sizeof buffer - 1) == 0 ? buffer : "unknown host");
  }();
  return name;
}

std::string new_id() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}", random(), random());
}

// Checks the tensors of one part, adds names, types and shapes to the hash, returns their sizes.
std::vector<std::uint64_t> describe(std::vector<NamedTensor> const& tensors, std::string const& part, Xxh3& hash) {
  std::vector<std::uint64_t> bytes;
  std::set<std::string> names;
  for (NamedTensor const& named : tensors) {
    TensorEntry const entry = describe_tensor(named, part);
    if (!names.insert(entry.name).second) {
      throw CheckpointError(fmt::format("{}: tensor \"{}\" is there twice, give each its own name", part, entry.name));
    }
    hash.update(Json{part, entry.name, entry.dtype, entry.shape}.dump());
    bytes.push_back(entry.bytes);
  }
  return bytes;
}

class Write {
 public:
  Write(Communicator const& communicator, CheckpointWriterOptions const& options, CheckpointState const& state)
      : communicator_(communicator), options_(options), state_(state) {}

  std::string run() {
    auto const begun = together([&] { return begin(); });
    check_agreement(begun);
    auto const written = together([&] { return write_files(); });
    together([&] { return rank() == 0 ? commit(written) : ""; });
    std::string const trouble = on_rank_0([&] { finish(); });
    if (!trouble.empty()) {
      throw CheckpointError(
          fmt::format("{}: complete on disk, but `latest` or older checkpoints could not be "
                      "updated: {}",
                      final_, trouble));
    }
    return final_;
  }

 private:
  int rank() const { return communicator_.rank(); }

  // Runs `part` on every rank; returns what every rank's part returned. If one failed, all ranks throw the same error
  // after rank 0 has removed what was written.
  template <typename Part>
  std::vector<std::string> together(Part const& part) {
    Json mine = Json::object();
    try {
      mine["done"] = part();
    } catch (std::exception const& error) {
      mine["failed"] = fmt::format("rank {} on {}: {}", rank(), this_host(), error.what());
    }
    std::vector<std::string> done, failed;
    for (std::string const& text : exchange(mine)) {
      auto const theirs = Json::parse(text);
      auto& list = theirs.contains("failed") ? failed : done;
      list.push_back(theirs.front().get<std::string>());
    }
    if (!failed.empty()) abandon(failed.front(), failed.size());
    return done;
  }

  std::vector<std::string> exchange(Json const& mine) {
    // A system's message or a path need not be UTF-8.
    return all_gather_strings(communicator_, mine.dump(-1, ' ', false, Json::error_handler_t::replace));
  }

  template <typename Part>
  std::string on_rank_0(Part const& part) {
    Json trouble = "";
    try {
      if (rank() == 0) part();
    } catch (std::exception const& error) {
      trouble = error.what();
    }
    return Json::parse(exchange(trouble).front()).get<std::string>();
  }

  [[noreturn]] void abandon(std::string const& cause, std::size_t count) {
    std::string const left = on_rank_0([&] {
      if (!temporary_.empty()) remove_tree(temporary_);
    });
    throw CheckpointError(fmt::format("{}: checkpoint not written, {}{}{}", options_.directory, cause,
                                      count > 1 ? fmt::format(" (and {} more ranks failed)", count - 1) : "",
                                      left.empty() ? "" : fmt::format("; the remains could not be removed: {}", left)));
  }

  // Rank 0 makes the folder that all write into.
  std::string begin() {
    if (options_.keep_last < 1 || options_.keep_every < 0 || options_.max_file_bytes < 1) {
      throw CheckpointError(
          fmt::format("keep_last {} and max_file_bytes {} must be at least 1, keep_every {} at least 0",
                      options_.keep_last, options_.max_file_bytes, options_.keep_every));
    }
    counters_ = Json::parse(state_.counters_json, nullptr, /*allow_exceptions=*/false);
    if (!counters_.is_object()) throw CheckpointError("the counters are not a JSON object: " + state_.counters_json);
    final_ = options_.directory + "/" + step_folder_name(state_.step);
    Xxh3 hash;
    auto const model_bytes = describe(state_.model, "model", hash);
    auto const state_bytes = describe(state_.state, "state", hash);
    plan_ =
        plan_files(model_bytes, state_bytes, communicator_.size(), static_cast<std::uint64_t>(options_.max_file_bytes));
    Json description = {
        {"step", state_.step}, {"tensors", model_bytes.size() + state_bytes.size()}, {"digest", hash.digest()}};
    if (rank() == 0) {
      id_ = new_id();
      make_folders(options_.directory);
      remove_leftovers(options_.directory);
      temporary_ = temporary_name(final_, id_);
      make_folders(temporary_);
    }
    return Json{{"id", id_}, {"description", description}}.dump();
  }

  void check_agreement(std::vector<std::string> const& begun) {
    auto const first = Json::parse(begun.front());
    id_ = first["id"].get<std::string>();
    temporary_ = temporary_name(final_, id_);
    for (std::size_t r = 1; r < begun.size(); ++r) {
      auto const other = Json::parse(begun[r]);
      if (other["description"] == first["description"]) continue;
      abandon(fmt::format("rank {} brings other tensors or another step than rank 0 ({} against {})", r,
                          other["description"].dump(), first["description"].dump()),
              1);
    }
  }

  std::string write_files() {
    Json files = Json::array();
    for (FilePlan const& plan : plan_) {
      if (plan.rank != rank()) continue;
      auto const& list = plan.part == "model" ? state_.model : state_.state;
      std::vector<NamedTensor> tensors;
      for (std::size_t const index : plan.tensors) tensors.push_back(list[index]);
      files.push_back(write_file(plan, tensors));
    }
    sync_folder(temporary_);
    return files.dump();
  }

  Json write_file(FilePlan const& plan, std::vector<NamedTensor> const& tensors) {
    std::string hash;
    std::string const path = temporary_ + "/" + plan.name;
    // "pt" is what other readers of the format look for.
    auto const entries = write_safetensors(path, tensors, {{"format", "pt"}}, &hash);
    Json items = Json::array();
    for (TensorEntry const& entry : entries) items.push_back(to_json(entry));
    return {{"name", plan.name},
            {"bytes", InputFile(path).size()},
            {"xxh3", hash},
            {"part", plan.part},
            {"tensors", items}};
  }

  // Rank 0, when every file is on disk: from the rename on the checkpoint exists.
  std::string commit(std::vector<std::string> const& written) {
    write_text_file(manifest_path(temporary_), manifest_text(make_manifest(written)));
    sync_folder(temporary_);
    publish();
    try {
      sync_folder(options_.directory);
    } catch (CheckpointError const&) {
      publish_back();
      throw;
    }
    return "";
  }

  Manifest make_manifest(std::vector<std::string> const& written) const {
    Manifest manifest;
    manifest.step = state_.step;
    manifest.world_size = communicator_.size();
    manifest.duoflow_version = DUOFLOW_VERSION;
    manifest.config_yaml = state_.config_yaml;
    manifest.counters = counters_;
    for (std::string const& text : written) {
      for (Json const& file : Json::parse(text)) {
        manifest.files.push_back({file["name"], file["xxh3"], file["bytes"]});
        for (Json const& item : file["tensors"]) {
          manifest.tensors.push_back({file["part"], file["name"], entry_from_json(item)});
        }
      }
    }
    std::sort(manifest.files.begin(), manifest.files.end(),
              [](ManifestFile const& a, ManifestFile const& b) { return a.name < b.name; });
    // The ranks' shares of a part follow each other in list order already.
    std::stable_sort(manifest.tensors.begin(), manifest.tensors.end(),
                     [](ManifestTensor const& a, ManifestTensor const& b) { return a.part < b.part; });
    return manifest;
  }

  void publish() {
    replaced_ = path_exists(final_);
    if (replaced_) {
      swap_folders(temporary_, final_, temporary_name(final_, id_ + "-old"));
    } else {
      rename_path(temporary_, final_);
    }
  }

  void publish_back() {
    if (replaced_) {
      swap_folders(temporary_, final_, temporary_name(final_, id_ + "-new"));
    } else {
      rename_path(final_, temporary_);
    }
  }

  // Rank 0, when the checkpoint is durable.
  void finish() {
    replace_latest(options_.directory, step_folder_name(state_.step), id_);
    if (replaced_) remove_tree(temporary_);
    prune_checkpoints(options_.directory, {options_.keep_last, options_.keep_every}, state_.step, id_);
  }

  Communicator communicator_;
  CheckpointWriterOptions const& options_;
  CheckpointState const& state_;
  Json counters_;
  std::vector<FilePlan> plan_;
  std::string final_, temporary_, id_;
  bool replaced_ = false;
};

}  // namespace

std::string write_checkpoint(Communicator const& communicator, CheckpointWriterOptions const& options,
                             CheckpointState const& state) {
  return Write(communicator, options, state).run();
}

}  // namespace duoflow::dist
