// The PLY format, after Greg Turk's description: a header of elements and their properties, then rows of text or binary numbers.
// Own code, since assimp's reader takes cut files for whole and dies of damaged headers.

#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <sstream>

#include "data/error.h"
#include "data/file.h"
#include "data/synth/mesh_data.h"

namespace duoflow::data {
namespace {

struct Property {
  std::string name;
  char type;       // f: float, d: double, and b s i (signed) B S I (unsigned) of 1, 2, 4 bytes
  char count = 0;  // the type of a list's length; 0: not a list
};
struct Element {
  std::string name;
  std::size_t rows;
  std::vector<Property> properties;
};

std::size_t bytes_of(char type) {
  switch (type) {
    case 'b':
    case 'B':
      return 1;
    case 's':
    case 'S':
      return 2;
    case 'd':
      return 8;
    default:
      return 4;
  }
}

class PlyReader {
 public:
  explicit PlyReader(std::string const& path) : path_(path), text_(read_text(path)) { read_header(); }

  MeshData run() {
    for (Element const& element : elements_) {
      if (element.name == "vertex") {
        read_vertices(element);
      } else if (element.name == "face") {
        read_faces(element);
      } else {
        for (std::size_t row = 0; row < element.rows; ++row) {
          for (Property const& property : element.properties) {
            skip(property);
          }
        }
      }
    }
    mesh_.materials.resize(1);
    return std::move(mesh_);
  }

 private:
  [[noreturn]] void fail(std::string const& why) const {
    throw DataError(fmt::format("{} is not a whole PLY mesh ({}), export it again", path_, why));
  }

  char type_named(std::string const& name) const {
    static constexpr std::pair<char const*, char> kTypes[] = {{"char", 'b'},  {"int8", 'b'},    {"uchar", 'B'},  {"uint8", 'B'},
                                                              {"short", 's'}, {"int16", 's'},   {"ushort", 'S'}, {"uint16", 'S'},
                                                              {"int", 'i'},   {"int32", 'i'},   {"uint", 'I'},   {"uint32", 'I'},
                                                              {"float", 'f'}, {"float32", 'f'}, {"double", 'd'}, {"float64", 'd'}};
    for (auto const& [known, type] : kTypes) {
      if (name == known) {
        return type;
      }
    }
    fail(fmt::format("its header has the unknown type \"{}\"", name));
  }

  std::string header_line() {
    std::size_t const end = text_.find('\n', at_);
    if (end == std::string::npos) {
      fail("its header has no end");
    }
    std::string line = text_.substr(at_, end - at_);
    at_ = end + 1;
    if (!line.empty() && line.back() == '\r') {
      line.pop_back();
    }
    return line;
  }

  void read_header() {
    if (header_line() != "ply") {
      fail("its first line is not \"ply\"");
    }
    for (std::string line = header_line(); line != "end_header"; line = header_line()) {
      std::istringstream words(line);
      std::string word;
      words >> word;
      if (word == "format") {
        words >> word;
        if (word != "ascii" && word != "binary_little_endian" && word != "binary_big_endian") {
          fail(fmt::format("its format is \"{}\"", word));
        }
        ascii_ = word == "ascii";
        swapped_ = (word == "binary_big_endian") == (std::endian::native == std::endian::little);
      } else if (word == "element") {
        Element element{};
        if (!(words >> element.name >> element.rows)) {
          fail(fmt::format("its header says \"{}\"", line));
        }
        for (Element const& other : elements_) {  // points with normals and points without would not be told apart
          if (other.name == element.name) {
            fail(fmt::format("its header has the element {} twice", element.name));
          }
        }
        elements_.push_back(element);
      } else if (word == "property") {
        if (elements_.empty()) {
          fail("its header has a property before the first element");
        }
        Property property{};
        words >> word;
        if (word == "list") {
          words >> word;
          property.count = type_named(word);
          words >> word;
        }
        property.type = type_named(word);
        if (!(words >> property.name)) {
          fail(fmt::format("its header says \"{}\"", line));
        }
        elements_.back().properties.push_back(property);
      }
    }
    for (Element const& element : elements_) {  // before anything that large is made
      std::size_t least = 0;
      for (Property const& property : element.properties) {
        least += ascii_ ? 2 : bytes_of(property.count != 0 ? property.count : property.type);
      }
      std::size_t const left = text_.size() - at_ + 1;  // the last number of a text may end with the file
      if (element.rows > 0 && (least == 0 || element.rows > left / least)) {
        fail(fmt::format("its header says {} {} rows, the {} bytes after it cannot hold them", element.rows, element.name,
                         text_.size() - at_));
      }
    }
  }

  double read_number(char type) {
    if (ascii_) {
      while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) {
        ++at_;
      }
      double value = 0;
      auto const [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
      if (at_ >= text_.size()) {
        fail("it ends before its last row");
      }
      if (error == std::errc::invalid_argument) {
        fail(fmt::format("byte {} begins no number", at_));
      }
      if (error == std::errc::result_out_of_range) {
        value = std::numeric_limits<double>::infinity();
      }
      at_ = static_cast<std::size_t>(end - text_.data());
      return value;
    }
    std::size_t const size = bytes_of(type);
    if (text_.size() - at_ < size) {
      fail("it ends before its last row");
    }
    char bytes[8];
    for (std::size_t i = 0; i < size; ++i) {
      bytes[i] = text_[at_ + (swapped_ ? size - 1 - i : i)];
    }
    at_ += size;
    auto const as = [&](auto value) {
      std::memcpy(&value, bytes, sizeof value);
      return static_cast<double>(value);
    };
    switch (type) {
      case 'b':
        return as(std::int8_t{});
      case 'B':
        return as(std::uint8_t{});
      case 's':
        return as(std::int16_t{});
      case 'S':
        return as(std::uint16_t{});
      case 'i':
        return as(std::int32_t{});
      case 'I':
        return as(std::uint32_t{});
      case 'd':
        return as(double{});
      default:
        return as(float{});
    }
  }

  void skip(Property const& property) {
    double const count = property.count != 0 ? read_number(property.count) : 1;
    for (double i = 0; i < count; ++i) {
      read_number(property.type);
    }
  }

  void read_vertices(Element const& element) {
    enum { x, y, z, nx, ny, nz, red, green, blue, u, v, kFields };
    static constexpr std::pair<char const*, int> kNames[] = {
        {"x", x},   {"y", y},     {"z", z},    {"nx", nx}, {"ny", ny}, {"nz", nz}, {"red", red}, {"green", green}, {"blue", blue},
        {"r", red}, {"g", green}, {"b", blue}, {"u", u},   {"v", v},   {"s", u},   {"t", v},     {"texture_u", u}, {"texture_v", v}};
    std::vector<int> fields;
    bool has[kFields] = {};
    float colour_scale = 1;
    for (Property const& property : element.properties) {
      int field = kFields;
      for (auto const& [name, known] : kNames) {
        if (property.count == 0 && property.name == name) {
          field = known;
        }
      }
      if (field < kFields) {
        has[field] = true;
      }
      if (field == red && bytes_of(property.type) == 1) {
        colour_scale = 1.0F / 255;
      }
      fields.push_back(field);
    }
    if (!has[x] || !has[y] || !has[z]) {
      fail("its vertices have no x, y and z");
    }
    float value[kFields + 1] = {};
    for (std::size_t row = 0; row < element.rows; ++row) {
      for (std::size_t p = 0; p < fields.size(); ++p) {
        if (element.properties[p].count != 0) {
          skip(element.properties[p]);
        } else {
          value[fields[p]] = static_cast<float>(read_number(element.properties[p].type));
        }
      }
      mesh_.points.push_back({value[x], value[y], value[z]});
      if (has[nx] && has[ny] && has[nz]) {
        mesh_.normals.push_back({value[nx], value[ny], value[nz]});
      }
      if (has[red] && has[green] && has[blue]) {
        mesh_.colours.push_back(
            {from_srgb(value[red] * colour_scale), from_srgb(value[green] * colour_scale), from_srgb(value[blue] * colour_scale)});
      }
      if (has[u] && has[v]) {
        mesh_.uvs.push_back({value[u], value[v]});
      }
    }
  }

  void read_faces(Element const& element) {
    for (std::size_t row = 0; row < element.rows; ++row) {
      for (Property const& property : element.properties) {
        if (property.count == 0 || (property.name != "vertex_indices" && property.name != "vertex_index")) {
          skip(property);
          continue;
        }
        double const corners = read_number(property.count);
        std::uint32_t first = 0, before = 0;
        for (double i = 0; i < corners; ++i) {
          double const index = read_number(property.type);
          if (!(index >= 0) || index >= static_cast<double>(mesh_.points.size())) {
            fail(fmt::format("face {} has the corner {} of {} vertices", row, index, mesh_.points.size()));
          }
          auto const corner = static_cast<std::uint32_t>(index);
          if (i == 0) {
            first = corner;
          }
          if (i >= 2) {
            mesh_.triangles.push_back({first, before, corner});
          }
          before = corner;
        }
      }
    }
  }

  std::string path_, text_;
  std::size_t at_ = 0;
  bool ascii_ = true, swapped_ = false;
  std::vector<Element> elements_;
  MeshData mesh_;
};

}  // namespace

MeshData read_ply(std::string const& path) { return PlyReader(path).run(); }

}  // namespace duoflow::data
