// PLY meshes, as they are.

#include <stdexcept>

#include "data/error.h"
#include "data/synth/mesh_data.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

bool read_ply_mesh(std::string const& input) {
  static MemoryFile const file;
  auto const path = file.holding("ply\n" + input);
  return read_or_refused<data::DataError>([&] {
    auto const mesh = data::read_ply(path);
    auto const fits = [&](std::size_t size) { return size == 0 || size == mesh.points.size(); };
    if (!fits(mesh.normals.size()) || !fits(mesh.colours.size()) || !fits(mesh.uvs.size()))
      throw std::logic_error("points without all of their values");
    for (auto const& triangle : mesh.triangles)
      for (auto const corner : triangle)
        if (corner >= mesh.points.size()) throw std::logic_error("a corner that is no point");
  });
}

std::string ply_of(std::string const& format, int vertices, std::string const& properties, int faces,
                   std::string const& rows) {
  return "format " + format + " 1.0\nelement vertex " + std::to_string(vertices) + "\n" + properties + "element face " +
         std::to_string(faces) + "\nproperty list uchar int vertex_indices\nend_header\n" + rows;
}

std::vector<std::string> ply_seeds() {
  std::string const place = "property float x\nproperty float y\nproperty float z\n";
  std::string const normal = "property float nx\nproperty float ny\nproperty float nz\n";
  std::string const small =
      "property char x\nproperty char y\nproperty char z\nproperty uchar red\nproperty uchar green\nproperty uchar "
      "blue\n";
  return {ply_of("ascii", 3, place, 1, "0 0 0\n1 0 0\n0 1e0 0\n3 0 1 2\n"),
          ply_of("binary_little_endian", 3, small, 1,
                 std::string(18, '\5') + "\3" + little_endian(0, 4) + little_endian(1, 4) + little_endian(2, 4)),
          ply_of("binary_big_endian", 1, place + normal + "property list uchar short more\n", 0,
                 std::string(24, '\1') + std::string("\2abcd", 5)),
          "format ascii 1.0\nelement vertex 1\n" + place + "element vertex 2\n" + place + normal +
              "end_header\n0 0 0 1 1 1 0 0 1 2 2 2 0 0 1",
          ply_of("ascii", 1, place, 1, "nan inf -1e999\n4 0 0 0 7\n"),
          "format ascii 1.0\nelement vertex -1\n" + place + "end_header\n"};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(ply, duoflow::fuzz::read_ply_mesh, duoflow::fuzz::ply_seeds);
