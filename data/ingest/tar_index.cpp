#include "data/ingest/tar_index.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include "data/error.h"

namespace duoflow::data {
namespace {

constexpr std::size_t kBlock = 512;
constexpr std::uint64_t kMostHeaderBytes = std::uint64_t{1} << 20;  // of a pax header or a long name
using Block = std::array<char, kBlock>;

std::string_view field(Block const& block, std::size_t at, std::size_t size) {
  std::string_view const whole(block.data() + at, size);
  return whole.substr(0, whole.find('\0'));
}

// Octal text, or for large files a binary number marked by the top bit.
std::uint64_t number(Block const& block, std::size_t at, std::size_t size) {
  std::uint64_t value = 0;
  if ((static_cast<unsigned char>(block[at]) & 0x80U) != 0) {
    for (std::size_t i = size - 8; i < size; ++i) { value = value << 8 | static_cast<unsigned char>(block[at + i]); }
    return value;
  }
  for (char const c : field(block, at, size)) {
    if (c >= '0' && c <= '7') { value = value * 8 + static_cast<std::uint64_t>(c - '0'); }
  }
  return value;
}

bool has_right_checksum(Block const& block) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i) { sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(block[i]); }
  return sum == number(block, 148, 8);
}

std::string name_of(Block const& block) {
  std::string name(field(block, 0, 100));
  bool const posix = std::string_view(block.data() + 257, 6) == std::string_view("ustar\0", 6);
  auto const prefix = field(block, 345, 155);
  return posix && !prefix.empty() ? std::string(prefix) + "/" + name : name;
}

// Records "LENGTH KEY=VALUE\n" of a pax header.
std::map<std::string, std::string> pax_records(std::string_view text) {
  std::map<std::string, std::string> records;
  while (!text.empty()) {
    auto const space = text.find(' ');
    auto const length = static_cast<std::size_t>(std::strtoull(std::string(text.substr(0, space)).c_str(), nullptr, 10));
    if (space == std::string_view::npos || length <= space + 1 || length > text.size()) { break; }
    auto const record = text.substr(space + 1, length - space - 2);
    if (auto const equals = record.find('='); equals != std::string_view::npos) { records[std::string(record.substr(0, equals))] = record.substr(equals + 1); }
    text.remove_prefix(length);
  }
  return records;
}

std::string compression_of(std::string_view start) {
  if (start.starts_with("\x1f\x8b")) { return "gzip"; }
  if (start.starts_with("BZh")) { return "bzip2"; }
  if (start.starts_with("\xfd" "7zXZ")) { return "xz"; }
  if (start.starts_with("\x28\xb5\x2f\xfd")) { return "zstd"; }
  return "";
}

std::string start_of(std::string const& path) {
  std::string start(kBlock, '\0');
  start.resize(FileDescriptor(path).read_at(0, start.data(), start.size()));
  return start;
}

// The name inside the archive. DataError when it leads out of it.
std::string inner_name(std::string const& name, std::string const& archive) {
  std::filesystem::path const path(name);
  bool const climbs = std::any_of(path.begin(), path.end(), [](auto const& part) { return part == ".."; });
  if (name.empty() || name[0] == '/' || climbs) {
    throw DataError(fmt::format("{}: member '{}' leads out of the archive (its name is absolute or climbs with ..), pack it again from inside its folder",
                                archive, name));
  }
  std::string normal = path.lexically_normal().string();
  while (!normal.empty() && normal.back() == '/') { normal.pop_back(); }
  return normal == "." ? "" : normal;
}

}  // namespace

bool is_archive(std::string const& path) {
  std::string const start = start_of(path);
  bool const tar = start.size() == kBlock && start.compare(257, 5, "ustar") == 0;
  bool const named = path.ends_with(".tar") || path.ends_with(".tgz") || path.find(".tar.") != std::string::npos;
  return tar || (named && (start.empty() || !compression_of(start).empty() || path.ends_with(".tar")));
}

TarIndex::TarIndex(std::string const& path) : path_(path), file_(path) {
  if (std::string const packed = compression_of(start_of(path)); !packed.empty()) {
    throw DataError(fmt::format("{} is compressed with {} (members of a compressed archive cannot be read one by one; pictures hardly shrink), decompress it "
                                "to a plain .tar",
                                path, packed));
  }
  try {
    scan();
  } catch (std::system_error const& error) {
    throw DataError(fmt::format("cannot read {} ({}), check the disk", path, error.what()));
  }
}

void TarIndex::scan() {
  std::uint64_t const size = file_.size();
  std::map<std::string, std::string> pax;  // of the next member
  std::string long_name;
  for (std::uint64_t at = 0;;) {
    Block block{};
    if (file_.read_at(at, block.data(), kBlock) != kBlock) { throw DataError(fmt::format("{} is cut short (no end mark after {} bytes), copy it again", path_, at)); }
    if (std::all_of(block.begin(), block.end(), [](char c) { return c == '\0'; })) { return; }
    if (!has_right_checksum(block)) { throw DataError(fmt::format("{} is no whole tar (the header at byte {} has a wrong checksum), copy it again", path_, at)); }
    std::uint64_t const data = at + kBlock;
    std::uint64_t bytes = number(block, 124, 12);
    char const type = block[156];
    if (auto const found = pax.find("size"); found != pax.end() && type != 'x' && type != 'L') { bytes = std::strtoull(found->second.c_str(), nullptr, 10); }
    std::string const name = pax.count("path") != 0 ? pax["path"] : !long_name.empty() ? long_name : name_of(block);
    if (data > size || bytes > size - data) {
      throw DataError(fmt::format("{} is cut short (member '{}' needs {} bytes at {}, the file has {}), copy it again", path_, name, bytes, data, size));
    }
    auto const text = [&] {
      if (bytes > kMostHeaderBytes) {
        throw DataError(fmt::format("{} has {} bytes of header at byte {} ({} are the most), pack it again", path_, bytes, at, kMostHeaderBytes));
      }
      std::string out(bytes, '\0');
      out.resize(file_.read_at(data, out.data(), out.size()));
      return out;
    };
    bool const sparse = std::any_of(pax.begin(), pax.end(), [](auto const& record) { return record.first.starts_with("GNU.sparse"); });
    if (type == 'x') {
      pax = pax_records(text());
    } else if (type == 'L') {
      long_name = text();
      long_name.resize(std::min(long_name.find('\0'), long_name.size()));
    } else if (type != 'g' && type != 'K') {
      bool const regular = (type == '0' || type == '\0' || type == '7') && !sparse;
      if (!regular && type != '5') {
        throw DataError(fmt::format("{}: member '{}' is {} (only files and folders are read), pack it again with --dereference --hard-dereference", path_, name,
                                    type == '1' || type == '2' ? "a link" : "a sparse or special file"));
      }
      std::string const inner = inner_name(name, path_);
      if (regular) { members_[inner] = {data, bytes}; }
      pax.clear();
      long_name.clear();
    }
    at = data + (bytes + kBlock - 1) / kBlock * kBlock;
  }
}

bool TarIndex::has_folder(std::string const& name) const {
  if (name.empty()) { return true; }
  auto const next = members_.lower_bound(name + "/");
  return next != members_.end() && next->first.starts_with(name + "/");
}

std::vector<std::string> TarIndex::entries(std::string const& folder) const {
  std::string const prefix = folder.empty() ? "" : folder + "/";
  std::vector<std::string> names;
  for (auto member = members_.lower_bound(prefix); member != members_.end() && member->first.starts_with(prefix); ++member) {
    std::string const rest = member->first.substr(prefix.size());
    std::string const first = rest.substr(0, rest.find('/'));
    if (names.empty() || names.back() != first) { names.push_back(first); }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::string TarIndex::read(std::string const& name) const {
  auto const member = members_.find(name);
  if (member == members_.end()) { throw DataError(fmt::format("{} has no member '{}', pack it again", path_, name)); }
  try {
    std::string bytes(member->second.size, '\0');
    if (file_.read_at(member->second.offset, bytes.data(), bytes.size()) != bytes.size()) {
      throw DataError(fmt::format("{} became shorter while it was read (member '{}'), start again", path_, name));
    }
    return bytes;
  } catch (std::system_error const& error) {
    throw DataError(fmt::format("cannot read {} ({}), check the disk", path_, error.what()));
  }
}

}  // namespace duoflow::data
