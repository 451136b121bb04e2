#include "launch/pair_files.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>

#include <fmt/format.h>

#include "data/error.h"
#include "dist/checkpoint/safetensors.h"

namespace duoflow::launch {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 5> plain_endings = {".h5", ".hdf5", ".safetensors", ".npy", ".npz"};

data::PlainType type_of_safetensors(std::string const& dtype) {
  using data::PlainType;
  struct Known {
    char const* name;
    PlainType type;
  };
  constexpr std::array<Known, 6> known = {{{"F32", PlainType::f32},
                                           {"F16", PlainType::f16},
                                           {"BF16", PlainType::bf16},
                                           {"F64", PlainType::f64},
                                           {"I64", PlainType::i64},
                                           {"U8", PlainType::u8}}};
  for (auto const& row : known)
    if (dtype == row.name) return row.type;
  return PlainType::other;
}

data::PlainArrays open_safetensors(std::string const& path) {
  data::PlainArrays arrays;
  for (auto const& entry : dist::read_safetensors_header(path))
    arrays.emplace(entry.name, data::array_in_file(path, fmt::format("{}: {}", path, entry.name),
                                                   type_of_safetensors(entry.dtype), entry.shape, entry.offset));
  return arrays;
}

data::PlainArrays open_npy_folder(std::string const& path) {
  data::PlainArrays arrays;
  for (auto const& entry : fs::directory_iterator(path))
    if (entry.path().extension() == ".npy")
      arrays.emplace(entry.path().stem().string(), data::open_npy(entry.path().string()));
  return arrays;
}

// Where `path` by itself is a source of the sort `ending`.
data::PlainSource source_at(std::string const& path, std::string_view ending) {
  if (ending == ".npy") return {path, [path] { return open_npy_folder(path); }};
  if (ending == ".safetensors") return {path, [path] { return open_safetensors(path); }};
  return {path, [path] { return data::open_plain_hdf5(path); }};
}

// ".h5", ".safetensors", ".npy" (a folder with x0.npy); "" for anything else.
std::string_view sort_of(fs::path const& path) {
  if (fs::is_directory(path)) return fs::exists(path / "x0.npy") ? ".npy" : "";
  auto const ending = path.extension();
  if (ending == ".h5" || ending == ".hdf5") return ".h5";
  return ending == ".safetensors" ? ".safetensors" : "";
}

std::vector<data::PlainSource> sources_in(std::string const& folder) {
  std::vector<std::string> names;
  std::string_view sort;
  for (auto const& entry : fs::directory_iterator(folder)) {
    auto const found = sort_of(entry.path());
    if (found.empty()) continue;
    if (!sort.empty() && found != sort)
      throw data::DataError(fmt::format(
          "{} holds pairs of the sorts {} and {} (their order would be a guess); keep them in folders of their own",
          folder, sort, found));
    sort = found;
    names.push_back(entry.path().string());
  }
  if (names.empty())
    throw data::DataError(fmt::format(
        "{} holds no pairs (no x0.npy, no file or folder with x0 and x1); name a folder of .h5 or .safetensors "
        "files, of .npy arrays, or the .pt file of a checkpoint",
        folder));
  std::sort(names.begin(), names.end());
  std::vector<data::PlainSource> sources;
  for (auto const& name : names) sources.push_back(source_at(name, sort));
  return sources;
}

}  // namespace

bool may_hold_plain_pairs(std::string const& path) {
  return fs::is_directory(path) || std::any_of(plain_endings.begin(), plain_endings.end(),
                                               [&](std::string_view ending) { return path.ends_with(ending); });
}

std::vector<data::PlainSource> plain_pair_sources(std::string const& path) {
  if (path.ends_with(".npy"))
    throw data::DataError(
        fmt::format("{} is one array (a pair needs x0.npy and x1.npy); name the folder that holds both", path));
  if (path.ends_with(".npz"))
    throw data::DataError(
        fmt::format("{} is an archive of arrays; unpack it (unzip) and name the folder with x0.npy and x1.npy", path));
  if (!fs::exists(path)) throw data::DataError(fmt::format("{} is not there; correct the name", path));
  auto const sort = sort_of(path);
  if (sort.empty()) return sources_in(path);
  return {source_at(path, sort)};
}

}  // namespace duoflow::launch
