#include "data/synth/mesh_file.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "data/error.h"
#include "data/images/image_io.h"
#include "tests/data/images/python.h"

namespace duoflow::data {
namespace {

class MeshFileTest : public ::testing::Test {
 protected:
  MeshFileTest() : folder_(std::filesystem::path(::testing::TempDir()) / "synth_mesh_file") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~MeshFileTest() override { std::filesystem::remove_all(folder_); }

  std::string write(std::string const& name, std::string const& bytes) const {
    std::string const path = (folder_ / name).string();
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  static Object load(std::string const& path, MeshUp up = MeshUp::by_format) { return load_mesh(path, up, KeyedRandom(1)).object; }
  static std::string refusal(std::string const& path) {
    try {
      load(path);
    } catch (DataError const& error) {
      return error.what();
    }
    return "";
  }
  std::filesystem::path folder_;
};

template <typename T>
std::string raw(std::initializer_list<T> values, bool big_endian = false) {
  std::string bytes;
  for (T const value : values) {
    std::string one(sizeof(T), '\0');
    std::memcpy(one.data(), &value, sizeof(T));
    bytes += big_endian ? std::string(one.rbegin(), one.rend()) : one;
  }
  return bytes;
}

std::string ply_header(std::string const& format, int vertices, int faces, std::string const& more = "") {
  return "ply\nformat " + format + " 1.0\ncomment made by a test\nelement vertex " + std::to_string(vertices) +
         "\nproperty float x\nproperty float y\nproperty float z\n" + more + "element face " + std::to_string(faces) +
         "\nproperty list uchar int vertex_indices\nend_header\n";
}

// The corners 4 long (x), 2 deep (y), 1 high (z) of a box, two triangles or one quad a side.
constexpr char const* kBoxObj =
    "v 0 0 0\nv 4 0 0\nv 4 2 0\nv 0 2 0\nv 0 0 1\nv 4 0 1\nv 4 2 1\nv 0 2 1\n"
    "f 4 3 2 1\nf 5 6 7 8\nf 1 2 6 5\nf 2 3 7 6\nf 3 4 8 7\nf 4 1 5 8\n";

void expect_near(Vec3 a, Vec3 b, float tolerance = 1e-4F) {
  EXPECT_NEAR(a.x, b.x, tolerance);
  EXPECT_NEAR(a.y, b.y, tolerance);
  EXPECT_NEAR(a.z, b.z, tolerance);
}

TEST_F(MeshFileTest, AnObjIsTurnedUprightCentredAndScaled) {
  Object const box = load(write("box.obj", kBoxObj));
  EXPECT_EQ(box.name, "box");
  EXPECT_EQ(box.mesh.triangles.size(), 12U);
  EXPECT_TRUE(box.mesh.two_sided);
  Box const bounds = bounds_of(box.mesh);  // y up: the file's z, 1 long, lies along -y, and its y, 2 long, along z
  expect_near(bounds.high, {0.7F, 0.175F, 0.35F});
  expect_near(bounds.low, {-0.7F, -0.175F, -0.35F});
  expect_near(bounds_of(load((folder_ / "box.obj").string(), MeshUp::z).mesh).high, {0.7F, 0.35F, 0.175F});
}

TEST_F(MeshFileTest, MissingNormalsAreFlatAcrossSharpEdgesAndSmoothAcrossDullOnes) {
  Object const box = load(write("box.obj", kBoxObj), MeshUp::z);
  for (std::size_t i = 0; i < box.mesh.points.size(); ++i) {  // each normal is one of the six axes
    Vec3 const n = box.mesh.normals[i];
    EXPECT_NEAR(std::max({std::abs(n.x), std::abs(n.y), std::abs(n.z)}), 1, 1e-5F);
    EXPECT_GT(dot(n, box.mesh.points[i]), 0);
  }
  // Two equal squares that meet at 30 degrees: at the seam the normal lies half way.
  Object const bent = load(
      write("bent.obj", "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 1.8660254 0 0.5\nv 1.8660254 1 0.5\nf 1 2 3 4\nf 2 5 6 3\n"), MeshUp::z);
  float const seam = (1 - 0.5F * 1.8660254F) * 1.4F / 1.8660254F;
  int at_seam = 0;
  for (std::size_t i = 0; i < bent.mesh.points.size(); ++i) {
    float const degrees = std::acos(std::min(1.0F, bent.mesh.normals[i].z)) * 57.29578F;
    if (std::abs(bent.mesh.points[i].x - seam) < 1e-4F) {
      EXPECT_NEAR(degrees, 15, 5.2F);  // by the areas of the one or two triangles of each square that touch the corner
      ++at_seam;
    } else {
      EXPECT_NEAR(degrees, bent.mesh.points[i].x < seam ? 0 : 30, 0.1F);
    }
  }
  EXPECT_EQ(at_seam, 6);
}

TEST_F(MeshFileTest, PlyReadsTextAndBothBinaryOrdersAlike) {
  std::string const text = write("a.ply", ply_header("ascii", 4, 2) + "0 0 0\n2 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n");
  Object const ascii = load(text);
  for (bool const big : {false, true}) {
    std::string bytes =
        ply_header(big ? "binary_big_endian" : "binary_little_endian", 4, 2) + raw<float>({0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1}, big);
    bytes += "\3" + raw<std::int32_t>({0, 1, 2}, big) + "\3" + raw<std::int32_t>({0, 1, 3}, big);
    Object const binary = load(write("b.ply", bytes));
    ASSERT_EQ(binary.mesh.points.size(), ascii.mesh.points.size());
    for (std::size_t i = 0; i < ascii.mesh.points.size(); ++i) {
      expect_near(binary.mesh.points[i], ascii.mesh.points[i], 0);
      expect_near(binary.mesh.normals[i], ascii.mesh.normals[i], 0);
    }
    EXPECT_EQ(binary.mesh.triangles, ascii.mesh.triangles);
  }
}

TEST_F(MeshFileTest, PlyColoursAreTheSurfacesAndOtherElementsAreSkipped) {
  std::string const header =
      "ply\r\nformat ascii 1.0\r\nelement camera 1\r\nproperty list uchar float pose\r\nelement vertex 3\r\nproperty double x\r\nproperty "
      "double y\r\n"
      "property double z\r\nproperty uchar red\r\nproperty uchar green\r\nproperty uchar blue\r\nelement face 1\r\nproperty uchar flags\r\n"
      "property list uchar uint vertex_index\r\nend_header\r\n";
  LoadedObject const loaded = load_mesh(write("c.ply", header + "2 0.5 0.25\n0 0 0 255 0 0\n1 0 0 0 255 0\n0 1 0 0 0 188\n7 3 0 1 2\n"),
                                        MeshUp::by_format, KeyedRandom(1));
  EXPECT_TRUE(loaded.has_colours);
  expect_near(loaded.object.surface_at({{}, 0, 0, 0}).diffuse, {1, 0, 0});
  expect_near(loaded.object.surface_at({{}, 0, 1, 0}).diffuse, {0, 1, 0});
  expect_near(loaded.object.surface_at({{}, 0, 0, 1}).diffuse, {0, 0, 0.5029F}, 1e-3F);  // sRGB 188
}

// Those of one list would have normals that those of the other lack.
TEST_F(MeshFileTest, APlyWithTwoListsOfPointsIsRefused) {
  std::string const place = "property float x\nproperty float y\nproperty float z\n";
  std::string const message =
      refusal(write("two.ply", "ply\nformat ascii 1.0\nelement vertex 3\n" + place + "element vertex 1\n" + place +
                                   "property float nx\nproperty float ny\nproperty float nz\nelement face 1\nproperty list uchar int "
                                   "vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n0 0 0 0 0 1\n3 0 1 2\n"));
  EXPECT_NE(message.find("two.ply"), std::string::npos) << message;
  EXPECT_NE(message.find("the element vertex twice"), std::string::npos) << message;
}

TEST_F(MeshFileTest, APictureOutsideTheMeshsFolderIsRefused) {
  write_png((folder_.parent_path() / "outside.png").string(), {1, 1, 3, {1, 2, 3}});
  for (std::string const& name : {std::string("../outside.png"), std::string("a/../../outside.png"), std::string("..\\outside.png"),
                                 (folder_.parent_path() / "outside.png").string()}) {
    write("o.mtl", "newmtl pictured\nKd 1 1 1\nmap_Kd " + name + "\n");
    std::string const message =
        refusal(write("o.obj", "mtllib o.mtl\nv 0 0 0\nv 1 0 0\nv 0 0 1\nvt 0 0\nusemtl pictured\nf 1/1 2/1 3/1\n"));
    EXPECT_NE(message.find("not in the mesh's folder or below"), std::string::npos) << name << ": " << message;
  }
  std::filesystem::remove(folder_.parent_path() / "outside.png");
}

TEST_F(MeshFileTest, AnObjTakesItsMaterialsColoursAndPicture) {
  Image8 picture{2, 2, 3, {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255}};  // red, green above blue, white
  write_png((folder_ / "t.png").string(), picture);
  write("m.mtl", "newmtl plain\nKd 0.2 0.4 0.6\nnewmtl pictured\nKd 1 1 1\nmap_Kd t.png\n");
  LoadedObject const loaded = load_mesh(write("m.obj",
                                              "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 0 1\nvt 0.25 0.75\nvt 0.75 0.75\nvt 0.25 0.25\nusemtl "
                                              "plain\nf 1/1 2/2 3/3\nusemtl pictured\nf 1/1 3/3 2/2\n"),
                                        MeshUp::by_format, KeyedRandom(1));
  EXPECT_TRUE(loaded.has_colours);
  ASSERT_EQ(loaded.object.mesh.triangles.size(), 2U);
  int plain = 0, pictured = 0;
  for (std::uint32_t t = 0; t < 2; ++t) {
    Vec3 const first = loaded.object.surface_at({{}, t, 0, 0}).diffuse;
    if (std::abs(first.x - 0.2F) < 1e-3F) {
      expect_near(first, {0.2F, 0.4F, 0.6F});
      ++plain;
    } else {  // v grows upwards: (0.25, 0.75) is the upper left texel
      expect_near(first, {1, 0, 0});
      expect_near(loaded.object.surface_at({{}, t, 1, 0}).diffuse, {0, 0, 1});  // the second corner, (0.25, 0.25)
      expect_near(loaded.object.surface_at({{}, t, 0, 1}).diffuse, {0, 1, 0});
      ++pictured;
    }
  }
  EXPECT_EQ(plain, 1);
  EXPECT_EQ(pictured, 1);
}

// A GLB of one triangle in the plane y = 0, with a picture inside, as the glTF 2.0 specification lays it out.
std::string glb(std::string const& picture, std::uint16_t last_index = 2, float first = 0) {
  std::string bin = raw<float>({first, 0, 0, 1, 0, 0, 0, 0, 1}) + raw<float>({0.25F, 0.25F, 0.75F, 0.25F, 0.25F, 0.75F}) +
                    raw<std::uint16_t>({0, 1, last_index, 0}) + picture;
  bin.resize((bin.size() + 3) / 4 * 4);
  std::string json =
      R"({"asset":{"version":"2.0"},"scene":0,"scenes":[{"nodes":[0]}],"nodes":[{"mesh":0,"scale":[3,3,3]}],)"
      R"("meshes":[{"primitives":[{"attributes":{"POSITION":0,"TEXCOORD_0":1},"indices":2,"material":0}]}],)"
      R"("materials":[{"pbrMetallicRoughness":{"baseColorTexture":{"index":0},"baseColorFactor":[1,1,0.5,1],"metallicFactor":0,"roughnessFactor":0.4}}],)"
      R"("textures":[{"source":0}],"images":[{"bufferView":3,"mimeType":"image/png"}],)"
      R"("accessors":[{"bufferView":0,"componentType":5126,"count":3,"type":"VEC3","min":[0,0,0],"max":[1,0,1]},)"
      R"({"bufferView":1,"componentType":5126,"count":3,"type":"VEC2"},{"bufferView":2,"componentType":5123,"count":3,"type":"SCALAR"}],)"
      R"("bufferViews":[{"buffer":0,"byteLength":36},{"buffer":0,"byteOffset":36,"byteLength":24},{"buffer":0,"byteOffset":60,"byteLength":6},)"
      R"({"buffer":0,"byteOffset":68,"byteLength":)" +
      std::to_string(picture.size()) + R"(}],"buffers":[{"byteLength":)" + std::to_string(bin.size()) + "}]}";
  json.resize((json.size() + 3) / 4 * 4, ' ');
  auto const total = static_cast<std::uint32_t>(28 + json.size() + bin.size());
  return "glTF" + raw<std::uint32_t>({2, total, static_cast<std::uint32_t>(json.size())}) + "JSON" + json +
         raw<std::uint32_t>({static_cast<std::uint32_t>(bin.size())}) + std::string("BIN\0", 4) + bin;
}

TEST_F(MeshFileTest, AGlbBringsItsPictureAndFactors) {
  write_png((folder_ / "t.png").string(), {2, 2, 3, {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255}});
  std::ifstream in(folder_ / "t.png", std::ios::binary);
  std::string const picture{std::istreambuf_iterator<char>(in), {}};
  LoadedObject const loaded = load_mesh(write("t.glb", glb(picture)), MeshUp::by_format, KeyedRandom(1));
  EXPECT_TRUE(loaded.has_colours);
  // glTF's v grows downwards: (0.25, 0.25) is the upper left texel.
  expect_near(loaded.object.surface_at({{}, 0, 0, 0}).diffuse, {1, 0, 0});
  expect_near(loaded.object.surface_at({{}, 0, 1, 0}).diffuse, {0, 1, 0});
  expect_near(loaded.object.surface_at({{}, 0, 0, 1}).diffuse, {0, 0, 0.5F});
  EXPECT_NEAR(loaded.object.surface_at({{}, 0, 0, 0}).alpha, 0.16F, 1e-5F);
  // y up: the triangle's plane y = 0 is level.
  Box const box = bounds_of(loaded.object.mesh);
  expect_near(box.high - box.low, {1.4F, 1.4F, 0});
}

TEST_F(MeshFileTest, BadMeshesAreErrorsThatNameTheFileAndTheReason) {
  std::string const triangle = "0 0 0\n1 0 0\n0 1 0\n", nan = "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n";
  struct Case {
    std::string file, bytes, reason;
  };
  std::vector<Case> const cases = {
      {"empty.obj", "", "cannot be read"},
      {"points.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n", ""},
      {"index.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "out of range"},
      {"nan.obj", nan, "which is no place"},
      {"flat.obj", "v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "extent"},
      {"line.obj", "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "no triangle with an area"},
      {"index.glb", glb("", 900), ""},
      {"cut.glb", glb("").substr(0, 100), "cannot be read"},
      {"noply.ply", "solid\n", "first line is not"},
      {"empty.ply", "", "no end"},
      {"cut.ply", ply_header("ascii", 3, 1) + "0 0 0\n1 0 0\n0 1 0\n3 0 1", "ends before"},
      {"word.ply", ply_header("ascii", 3, 1) + "0 0 zero\n" + triangle, "begins no number"},
      {"index.ply", ply_header("ascii", 3, 1) + triangle + "3 0 1 3\n", "corner 3 of 3"},
      {"negative.ply", ply_header("ascii", 3, 1) + triangle + "3 0 1 -1\n", "corner -1 of 3"},
      {"huge.ply", ply_header("binary_little_endian", 2000000000, 1), "2000000000 vertex rows"},
      {"type.ply", ply_header("ascii", 3, 1, "property quad w\n"), "unknown type \"quad\""},
      {"inf.ply", ply_header("ascii", 3, 1) + "0 0 1e999\n1 0 0\n0 1 0\n3 0 1 2\n", "which is no place"},
      {"none.ply", ply_header("ascii", 3, 0) + triangle, "has no triangle"},
  };
  for (Case const& c : cases) {
    std::string const message = refusal(write(c.file, c.bytes));
    EXPECT_NE(message.find(c.file), std::string::npos) << c.file << ": " << message;
    EXPECT_NE(message.find(c.reason), std::string::npos) << c.file << ": " << message;
  }
}

TEST_F(MeshFileTest, NoDamageToAPlyDoesMoreThanRefuseIt) {
  std::string whole = ply_header("binary_little_endian", 4, 2, "property uchar red\nproperty uchar green\nproperty uchar blue\n");
  for (int i = 0; i < 4; ++i) {
    whole += raw<float>({static_cast<float>(i), static_cast<float>(i * i), 1}) + "abc";
  }
  whole += "\3" + raw<std::int32_t>({0, 1, 2}) + "\3" + raw<std::int32_t>({0, 2, 3});
  ASSERT_EQ(refusal(write("whole.ply", whole)), "");
  KeyedRandom random(5);
  int refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::string damaged = whole;
    for (int j = random.below(3); j >= 0; --j) {
      damaged[static_cast<std::size_t>(random.below(static_cast<int>(whole.size())))] = static_cast<char>(random.below(256));
    }
    if (random.below(3) == 0) {
      damaged.resize(static_cast<std::size_t>(random.below(static_cast<int>(whole.size()))));
    }
    refused += refusal(write("damaged.ply", damaged)).empty() ? 0 : 1;
  }
  EXPECT_GT(refused, 200);
}

TEST_F(MeshFileTest, AFolderGivesItsMeshesByName) {
  write("b.obj", kBoxObj);
  write("a.PLY", "");
  write("notes.txt", "");
  EXPECT_EQ(mesh_files(folder_.string()), (std::vector<std::string>{(folder_ / "a.PLY").string(), (folder_ / "b.obj").string()}));
  EXPECT_EQ(mesh_files((folder_ / "b.obj").string()).size(), 1U);
  EXPECT_THROW(mesh_files((folder_ / "notes.txt").string()), DataError);
  EXPECT_THROW(mesh_files((folder_ / "absent").string()), DataError);
}

TEST_F(MeshFileTest, AStrayPointDoesNotShrinkTheMesh) {
  Object const triangle = load(write("stray.ply", ply_header("ascii", 4, 1) + "0 0 0\n1 0 0\n0 1 0\n900 0 0\n3 0 1 2\n"));
  float longest = 0;
  for (auto const& t : triangle.mesh.triangles) {
    longest = std::max(longest, length(triangle.mesh.points[t[1]] - triangle.mesh.points[t[0]]));
  }
  EXPECT_NEAR(longest, 1.4F, 1e-4F);
}

float distance(Vec3 p, Vec3 a, Vec3 b, Vec3 c) {  // of a point from a triangle
  Vec3 const normal = normalised(cross(b - a, c - a)), on_plane = p - normal * dot(p - a, normal);
  float nearest = std::abs(dot(p - a, normal));
  bool inside = true;
  float to_edge = 9;
  for (auto const& [from, to] : {std::pair{a, b}, std::pair{b, c}, std::pair{c, a}}) {
    Vec3 const along = to - from;
    inside = inside && dot(cross(along, on_plane - from), normal) >= 0;
    to_edge = std::min(to_edge, length(p - from - along * std::clamp(dot(p - from, along) / dot(along, along), 0.0F, 1.0F)));
  }
  return inside ? nearest : to_edge;
}

// The bunny of the shared scenes, whose points in world space the independent renderer's set has: the same placement and axes.
TEST_F(MeshFileTest, ADracoCompressedGlbStandsWhereTheIndependentRendererPutIt) {
  if (testing::shared_data().empty()) {
    GTEST_SKIP() << "no shared data beside the project";
  }
  Object const bunny = load(testing::shared_data() + "/meshes/bunny.glb");
  std::ifstream in(testing::shared_data() + "/lvsm_scenes/source/bunny/train/points.npy", std::ios::binary);
  std::string const file{std::istreambuf_iterator<char>(in), {}};
  ASSERT_GT(file.size(), 10U);
  std::size_t const begin = 10 + static_cast<unsigned char>(file[8]) + 256 * static_cast<std::size_t>(static_cast<unsigned char>(file[9]));
  std::vector<Vec3> points((file.size() - begin) / sizeof(Vec3));
  ASSERT_GT(points.size(), 100U);
  std::memcpy(points.data(), file.data() + begin, points.size() * sizeof(Vec3));
  float worst = 0;
  for (std::size_t i = 0; i < points.size(); i += 16) {
    float nearest = 9;
    for (auto const& t : bunny.mesh.triangles) {
      nearest = std::min(nearest, distance(points[i], bunny.mesh.points[t[0]], bunny.mesh.points[t[1]], bunny.mesh.points[t[2]]));
    }
    worst = std::max(worst, nearest);
  }
  EXPECT_LT(worst, 0.006F);  // of 1.4: a wrong axis or scale is off by a hundred times that
}

}  // namespace
}  // namespace duoflow::data
