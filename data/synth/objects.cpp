#include "data/synth/objects.h"

#include <fmt/format.h>

#include <filesystem>
#include <set>

namespace duoflow::data {
namespace {

// Scene names are made of object and light (object_env_3), and go into file names.
std::string object_name(std::string const& stem) {
  constexpr std::size_t kMost = 40;
  std::string name;
  for (char const c : stem.substr(0, kMost)) {
    name += std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' ? c : '-';
  }
  return name.empty() ? "mesh" : name;
}

}  // namespace

ObjectMaker::ObjectMaker(ObjectOptions const& options, std::uint64_t seed) : options_(options), seed_(seed) {
  if (options.meshes.empty()) {
    return;
  }
  files_ = mesh_files(options.meshes);
  std::set<std::string> taken;
  for (std::string const& file : files_) {
    std::string const name = object_name(std::filesystem::path(file).stem().string());
    std::string unique = name;
    for (int again = 2; !taken.insert(unique).second; ++again) {
      unique = fmt::format("{}-{}", name, again);
    }
    names_.push_back(unique);
  }
}

Object ObjectMaker::make_one(std::int64_t index) const {
  auto const i = static_cast<std::uint64_t>(index);
  KeyedRandom random(make_key(seed_, "finish", i));
  std::vector<Finish> choice = options_.materials;
  Object object;
  if (files_.empty()) {
    object = make_object(seed_, index);
  } else {
    auto const file = i % files_.size(), earlier_uses = i / files_.size();
    LoadedObject loaded = load_mesh(files_[file], options_.mesh_up, KeyedRandom(make_key(seed_, "patches", i)));
    object = std::move(loaded.object);
    object.name = earlier_uses == 0 ? names_[file] : fmt::format("{}_{}", names_[file], earlier_uses);
    if (!loaded.has_colours && choice.empty()) {
      choice = {Finish::diffuse, Finish::glossy, Finish::metal, Finish::textured};
    }
  }
  if (!choice.empty()) {
    Finish const finish = choice[static_cast<std::size_t>(random.below(static_cast<int>(choice.size())))];
    object.surface_at = refinished(std::move(object.surface_at), finish, KeyedRandom(random.bits()));
  }
  return object;
}

Object ObjectMaker::make(std::int64_t index) const {
  if (options_.per_scene == 1 && options_.ground == Ground::none) {
    return make_one(index);
  }
  std::vector<Object> members;
  for (std::int64_t m = 0; m < options_.per_scene; ++m) {
    members.push_back(make_one(index * options_.per_scene + m));
  }
  std::string const name = options_.per_scene == 1 ? members.front().name : fmt::format("group_{:03}", index);
  return arranged(std::move(members), options_.ground, name, KeyedRandom(make_key(seed_, "arrange", static_cast<std::uint64_t>(index))));
}

}  // namespace duoflow::data
