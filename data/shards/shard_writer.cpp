#include "data/shards/shard_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>

#include "data/error.h"
#include "data/file.h"
#include "data/shards/hdf5.h"

namespace duoflow::data {
namespace {

struct OpenDataset {
  DatasetSpec spec;
  h5::Handle handle, type;
  std::vector<bool> written;  // per row
};

h5::Handle create_dataset(h5::Handle const& file, DatasetSpec const& spec, hid_t type, std::string const& where) {
  auto const slash = spec.name.find('/');
  if (slash != std::string::npos) {
    auto const group = spec.name.substr(0, slash);
    if (h5::check(H5Lexists(file.get(), group.c_str(), H5P_DEFAULT), "H5Lexists", where) == 0) {
      h5::Handle const how(h5::check(H5Pcreate(H5P_GROUP_CREATE), "H5Pcreate", where), &H5Pclose);
      h5::check(H5Pset_obj_track_times(how.get(), false), "H5Pset_obj_track_times", where);
      h5::Handle const made(
          h5::check(H5Gcreate2(file.get(), group.c_str(), H5P_DEFAULT, how.get(), H5P_DEFAULT), "H5Gcreate2", where), &H5Gclose);
    }
  }
  h5::Handle const how(h5::check(H5Pcreate(H5P_DATASET_CREATE), "H5Pcreate", where), &H5Pclose);
  h5::check(H5Pset_layout(how.get(), H5D_CONTIGUOUS), "H5Pset_layout", where);
  // Early: the offset exists at once. Never filled: rows are written exactly once.
  h5::check(H5Pset_alloc_time(how.get(), H5D_ALLOC_TIME_EARLY), "H5Pset_alloc_time", where);
  h5::check(H5Pset_fill_time(how.get(), H5D_FILL_TIME_NEVER), "H5Pset_fill_time", where);
  h5::check(H5Pset_obj_track_times(how.get(), false), "H5Pset_obj_track_times", where);
  auto const space = h5::space_of(spec.shape);
  auto const id = H5Dcreate2(file.get(), spec.name.c_str(), type, space.get(), H5P_DEFAULT, how.get(), H5P_DEFAULT);
  return {h5::check(id, "H5Dcreate2", where), &H5Dclose};
}

void require_shape(DatasetSpec const& spec, std::string const& path) {
  bool const ok = !spec.shape.empty() && spec.shape[0] >= 0 &&
                  std::all_of(spec.shape.begin() + 1, spec.shape.end(), [](std::int64_t n) { return n > 0; });
  if (!ok)
    throw DataError(fmt::format("{}: dataset {} has shape [{}] (rows >= 0 and every other size > 0 needed), give it a full shape",
                                path, spec.name, fmt::join(spec.shape, ",")));
}

}  // namespace

struct ShardWriter::State {
  std::string path, temporary;
  ShardKind kind;
  Attributes attributes;
  h5::Handle file;
  std::map<std::string, OpenDataset> datasets;
  bool closed = false;

  State(std::string const& path_, ShardKind kind_) : path(path_), temporary(temporary_name(path_)), kind(kind_) {}
  ~State() {
    datasets.clear();
    if (closed) return;
    file.reset();
    std::remove(temporary.c_str());
  }

  OpenDataset& at(std::string const& name) {
    if (closed) throw DataError(fmt::format("{} is closed (dataset {} written after close), write before closing", path, name));
    auto const found = datasets.find(name);
    if (found == datasets.end())
      throw DataError(fmt::format("{} has no dataset {} (not among those it was made with), correct the name", path, name));
    return found->second;
  }

  void require_complete() const {
    for (auto const& [name, dataset] : datasets) {
      auto const missing = std::find(dataset.written.begin(), dataset.written.end(), false);
      if (missing != dataset.written.end())
        throw DataError(fmt::format("{}: row {} of dataset {} was never written ({} rows declared), write every row before closing",
                                    path, missing - dataset.written.begin(), name, dataset.written.size()));
    }
  }

  void write_attributes() const {
    h5::Handle const root(h5::check(H5Gopen2(file.get(), "/", H5P_DEFAULT), "H5Gopen2", temporary), &H5Gclose);
    h5::write_attribute(root.get(), "schema_version", kSchemaVersion);
    h5::write_attribute(root.get(), "kind", to_string(kind));
    h5::write_attribute(root.get(), "camera_convention", std::string("opencv c2w, pixel corners at integers"));
    h5::write_attribute(root.get(), "image_colour", std::string("8-bit gamma 1/2.2 over white"));
    h5::write_attribute(root.get(), "producer", attributes.producer);
    h5::write_attribute(root.get(), "note", attributes.note);
    if (!attributes.latent_mean.empty()) h5::write_attribute(root.get(), "latent_mean", attributes.latent_mean);
    if (!attributes.latent_std.empty()) h5::write_attribute(root.get(), "latent_std", attributes.latent_std);
  }
};

ShardWriter::ShardWriter(std::string const& path, ShardKind kind, std::vector<DatasetSpec> const& datasets, Attributes const& attributes)
    : state_(std::make_unique<State>(path, kind)) {
  auto const held = h5::lock();
  state_->attributes = attributes;
  std::uint64_t bytes = 0;
  for (auto const& spec : datasets) {
    require_shape(spec, path);
    bytes += static_cast<std::uint64_t>(spec.rows()) * spec.row_bytes();
  }
  require_space(path, bytes);
  state_->file = h5::create_file(state_->temporary);
  for (auto const& spec : datasets) {
    if (state_->datasets.count(spec.name) != 0)
      throw DataError(fmt::format("{}: dataset {} is given twice, name each dataset once", path, spec.name));
    auto& dataset = state_->datasets[spec.name];
    dataset.spec = spec;
    dataset.type = h5::type_of(spec.dtype);
    dataset.handle = create_dataset(state_->file, spec, dataset.type.get(), path + ":" + spec.name);
    dataset.written.resize(static_cast<std::size_t>(spec.rows()), false);
  }
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::write(std::string const& name, std::int64_t first_row, std::int64_t rows, void const* bytes) {
  auto const held = h5::lock();
  auto& dataset = state_->at(name);
  if (first_row < 0 || rows < 0 || rows > dataset.spec.rows() - first_row)
    throw DataError(fmt::format("{}: rows {} to {} written to dataset {} of {} rows, keep inside", state_->path, first_row,
                                first_row + rows, name, dataset.spec.rows()));
  if (rows == 0) return;
  auto memory_shape = dataset.spec.shape;
  memory_shape[0] = rows;
  auto const memory = h5::space_of(memory_shape);
  auto const space = h5::space_of(dataset.spec.shape);
  h5::select_rows(space.get(), dataset.spec.shape, first_row, rows);
  h5::check(H5Dwrite(dataset.handle.get(), dataset.type.get(), memory.get(), space.get(), H5P_DEFAULT, bytes), "H5Dwrite",
            state_->temporary + ":" + name);
  std::fill_n(dataset.written.begin() + first_row, rows, true);
}

void ShardWriter::write_names(std::string const& name, std::vector<std::string> const& names) {
  auto const& spec = state_->at(name).spec;
  if (spec.dtype != DType::name || spec.row_bytes() != kNameBytes || spec.rows() != static_cast<std::int64_t>(names.size()))
    throw DataError(fmt::format("{}: {} names written to dataset {} ({} [{}]), it needs type name and one row per name", state_->path,
                                names.size(), name, to_string(spec.dtype), fmt::join(spec.shape, ",")));
  std::vector<char> bytes(names.size() * kNameBytes, '\0');
  for (std::size_t row = 0; row < names.size(); ++row) {
    if (names[row].size() > kNameBytes || names[row].find('\0') != std::string::npos)
      throw DataError(fmt::format("{}: name \"{}\" for row {} of {} does not fit ({} bytes, at most {} and no NUL), shorten it",
                                  state_->path, names[row], row, name, names[row].size(), kNameBytes));
    std::memcpy(bytes.data() + row * kNameBytes, names[row].data(), names[row].size());
  }
  write(name, 0, spec.rows(), bytes.data());
}

void ShardWriter::set_attributes(Attributes const& attributes) { state_->attributes = attributes; }

void ShardWriter::close() {
  auto const held = h5::lock();
  if (state_->closed) return;
  state_->require_complete();
  state_->write_attributes();
  for (auto& [name, dataset] : state_->datasets)
    if (!dataset.handle.reset()) h5::fail("H5Dclose", state_->temporary + ":" + name);
  if (!state_->file.reset()) h5::fail("H5Fclose", state_->temporary);
  sync_and_rename(state_->temporary, state_->path);
  state_->closed = true;
}

}  // namespace duoflow::data
