#include "data/ingest/source_files.h"

#include <algorithm>
#include <filesystem>

namespace duoflow::data {
namespace {

namespace fs = std::filesystem;

constexpr int kFoldersAbove = 3;  // <root>/<split>/metadata/<scene>.json: the root is three above a metadata file

std::string tidy(std::string const& path) {
  std::string out = fs::path(path).lexically_normal().string();
  while (out.size() > 1 && out.back() == '/') { out.pop_back(); }
  return out;
}

}  // namespace

void SourceFiles::open_archive(std::string const& path) {
  auto& archive = archives_[tidy(path)];
  if (!archive) { archive = std::make_unique<TarIndex>(tidy(path)); }
}

std::pair<TarIndex const*, std::string> SourceFiles::find(std::string const& path) const {
  if (archives_.empty()) { return {}; }
  std::string const normal = tidy(path);
  for (auto const& [archive, index] : archives_) {
    if (normal == archive) { return {index.get(), ""}; }
    if (normal.size() > archive.size() && normal[archive.size()] == '/' && normal.starts_with(archive)) { return {index.get(), normal.substr(archive.size() + 1)}; }
  }
  return {};
}

bool SourceFiles::is_file(std::string const& path) const {
  if (auto const [archive, name] = find(path); archive != nullptr) { return archive->has_file(name); }
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

bool SourceFiles::is_folder(std::string const& path) const {
  if (auto const [archive, name] = find(path); archive != nullptr) { return archive->has_folder(name); }
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

std::vector<std::string> SourceFiles::entries(std::string const& folder) const {
  if (auto const [archive, name] = find(folder); archive != nullptr) { return archive->entries(name); }
  std::vector<std::string> names;
  for (auto const& entry : fs::directory_iterator(folder)) { names.push_back(entry.path().filename().string()); }
  std::sort(names.begin(), names.end());
  return names;
}

std::string SourceFiles::read(std::string const& path) const {
  if (auto const [archive, name] = find(path); archive != nullptr) { return archive->read(name); }
  return read_text(path);
}

std::optional<std::pair<std::string, std::string>> SourceFiles::moved(std::string const& path, std::string const& near) const {
  fs::path const whole = tidy(path);
  std::vector<std::string> parts;
  for (fs::path const& part : whole) {
    if (part != "/") { parts.push_back(part.string()); }
  }
  for (std::size_t skip = 1; skip < parts.size(); ++skip) {
    fs::path tail, head = whole.is_absolute() ? "/" : "";
    for (std::size_t i = 0; i < parts.size(); ++i) { (i < skip ? head : tail) /= parts[i]; }
    fs::path above = tidy(near);
    for (int k = 0; k <= kFoldersAbove; ++k, above = above.parent_path()) {
      if (is_file((above / tail).string())) { return {{head.string(), above.string()}}; }
    }
  }
  return std::nullopt;
}

}  // namespace duoflow::data
