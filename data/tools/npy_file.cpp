// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html: "\x93NUMPY", version, length of the header,
// the header (a Python dict of three items as text), the numbers.

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cstring>
#include <string_view>
#include <system_error>

#include "data/error.h"
#include "data/file.h"
#include "data/tools/plain_array.h"

namespace duoflow::data {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kMostHeaderBytes = std::size_t{1} << 16;  // numpy refuses more than 10000 characters by itself

struct NpyType {
  char const* text;
  PlainType type;
};
constexpr std::array<NpyType, 8> kNpyTypes{{{"|u1", PlainType::u8},
                                            {"<u1", PlainType::u8},
                                            {"<i8", PlainType::i64},
                                            {"<f2", PlainType::f16},
                                            {"<f4", PlainType::f32},
                                            {"<f8", PlainType::f64},
                                            {"=f4", PlainType::f32},
                                            {"=f8", PlainType::f64}}};

struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// The dict that numpy writes: three known keys, each once, in any order; nothing else of Python is understood.
class HeaderText {
 public:
  HeaderText(std::string_view text, std::string const& path) : rest_(text), path_(path) {}

  NpyHeader parse() {
    NpyHeader header;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!accept('}')) {
      auto const key = quoted();
      expect(':');
      if (key == "descr" && !descr)
        descr = true, header.descr = type();
      else if (key == "fortran_order" && !order)
        order = true, header.fortran_order = truth();
      else if (key == "shape" && !shape)
        shape = true, header.shape = tuple();
      else
        fail(fmt::format("key '{}'", key));
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    if (!rest_.empty() || !descr || !order || !shape) fail("descr, fortran_order and shape, once each");
    return header;
  }

 private:
  [[noreturn]] void fail(std::string const& what) const {
    throw DataError(
        fmt::format("{}: its header cannot be understood (at {}), save it again with numpy.save", path_, what));
  }
  void skip_spaces() { rest_.remove_prefix(std::min(rest_.size(), rest_.find_first_not_of(" \t\n"))); }
  bool accept(char c) {
    skip_spaces();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail(fmt::format("'{}' expected", c));
  }
  std::string quoted() {
    skip_spaces();
    char const quote = rest_.empty() ? ' ' : rest_.front();
    auto const end = quote == '\'' || quote == '"' ? rest_.find(quote, 1) : std::string_view::npos;
    if (end == std::string_view::npos) fail("a quoted word expected");
    std::string const word(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return word;
  }
  std::string type() {
    skip_spaces();
    if (!rest_.empty() && rest_.front() == '[')
      throw DataError(fmt::format("{} holds records (plain numbers are needed), save each field by itself", path_));
    return quoted();
  }
  bool truth() {
    skip_spaces();
    for (std::string_view const word : {"True", "False"})
      if (rest_.starts_with(word)) {
        rest_.remove_prefix(word.size());
        return word == "True";
      }
    fail("True or False expected");
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> sizes;
    expect('(');
    while (!accept(')')) {
      skip_spaces();
      std::int64_t size = 0;
      auto const [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), size);
      if (error != std::errc() || size < 0) fail("a size expected");
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      sizes.push_back(size);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return sizes;
  }

  std::string_view rest_;
  std::string const& path_;
};

PlainType npy_type(std::string const& descr, std::string const& path) {
  for (auto const& known : kNpyTypes)
    if (descr == known.text) return known.type;
  if (descr.find('O') != std::string::npos)
    throw DataError(fmt::format(
        "{} holds Python objects (a pickle, which could run any program and is never loaded), save plain numbers",
        path));
  if (descr.starts_with('>'))
    throw DataError(fmt::format("{} holds big-endian numbers ({}), save it with .astype('<f4')", path, descr));
  throw DataError(fmt::format(
      "{} holds numbers of type {} (known: u1, i8, f2, f4, f8; this format has no bf16), save it as float32, or as "
      "bf16 in HDF5 or safetensors",
      path, descr));
}

}  // namespace

PlainArray open_npy(std::string const& path) try {
  FileDescriptor const file(path);
  auto const size = file.size();
  std::array<unsigned char, 12> start{};
  auto const got = file.read_at(0, start.data(), start.size());
  if (got < 10 || std::memcmp(start.data(), kMagic.data(), kMagic.size()) != 0)
    throw DataError(fmt::format("{} is no .npy file (it does not begin as one), save it with numpy.save", path));
  int const version = start[6];
  if (version < 1 || version > 3)
    throw DataError(
        fmt::format("{} has version {} of the format (1 to 3 are known), save it with numpy.save", path, version));
  std::size_t const prefix = version == 1 ? 10 : 12;
  std::size_t length = start[8] | std::size_t{start[9]} << 8;
  if (version > 1) length |= std::size_t{start[10]} << 16 | std::size_t{start[11]} << 24;
  if (length > kMostHeaderBytes || prefix + length > size)
    throw DataError(
        fmt::format("{}: its header would have {} bytes (the file has {}: cut short or damaged), copy it again", path,
                    length, size));
  std::string text(length, '\0');
  if (file.read_at(prefix, text.data(), length) != length)
    throw DataError(fmt::format("{} ends inside its header, copy it again", path));
  auto const header = HeaderText(text, path).parse();
  auto const type = npy_type(header.descr, path);
  if (header.fortran_order)
    throw DataError(fmt::format("{} is in Fortran order (columns first), save it with numpy.ascontiguousarray", path));
  auto array = array_in_file(path, path, type, header.shape, prefix + length);
  auto bytes = byte_size(type);
  for (auto const axis : header.shape) bytes *= static_cast<std::size_t>(axis);
  if (prefix + length + bytes != size)
    throw DataError(
        fmt::format("{} has {} bytes (its header says {}), save it again", path, size, prefix + length + bytes));
  return array;
} catch (std::system_error const& error) {
  throw DataError(fmt::format("cannot read {} ({}), check the disk", path, error.what()));
}

}  // namespace duoflow::data
