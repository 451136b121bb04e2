// Plain pairs: what becomes of them, and what is refused with which words.

#include "data/tools/pair_import.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "data/images/environment_map.h"
#include "data/tools/float_rows.h"
#include "data/shards/raw_reader.h"
#include "named_folders.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

template <class T>
PlainArray array_of(std::string const& where, PlainType type, std::vector<std::int64_t> const& shape,
                    std::vector<T> const& values) {
  PlainArray array{where, type, shape, {}};
  auto const row = array.row_bytes();
  array.read = [values, row](std::int64_t first, std::int64_t rows, void* out) {
    std::memcpy(out, reinterpret_cast<char const*>(values.data()) + static_cast<std::size_t>(first) * row,
                static_cast<std::size_t>(rows) * row);
  };
  return array;
}

std::vector<float> counted(std::int64_t count, float begin) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(begin + static_cast<float>(i));
  return values;
}

// P pairs of 2 x 3 latents: number i of x0 is i, of x1 100 + i. One target view of 4 x 4 whose bytes are the pair's
// number.
PlainArrays complete(std::int64_t pairs, bool with_pictures = true) {
  PlainArrays arrays;
  arrays["x0"] = array_of("f: /x0", PlainType::f32, {pairs, 2, 3}, counted(6 * pairs, 0));
  arrays["x1"] = array_of("f: /x1", PlainType::f32, {pairs, 2, 3}, counted(6 * pairs, 100));
  if (!with_pictures) return arrays;
  std::vector<std::uint8_t> pixels;
  std::vector<float> c2w, k, env;
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    pixels.insert(pixels.end(), 48, static_cast<std::uint8_t>(pair));
    for (float const x : {1.F, 0.F, 0.F, 0.F, 0.F, 1.F, 0.F, 0.F, 0.F, 0.F, 1.F, -2.F, 0.F, 0.F, 0.F, 1.F})
      c2w.push_back(x);
    for (float const x : {4.F, 4.F, 2.F, 2.F}) k.push_back(x);
    env.insert(env.end(), 24, pair == 0 ? 0.5F : 2.0F);  // pairs 1, 2, ... are under one light
  }
  arrays["target_images"] = array_of("f: /target_images", PlainType::u8, {pairs, 1, 4, 4, 3}, pixels);
  arrays["target_c2w"] = array_of("f: /target_c2w", PlainType::f32, {pairs, 1, 4, 4}, c2w);
  arrays["target_fxfycxcy"] = array_of("f: /target_fxfycxcy", PlainType::f32, {pairs, 1, 4}, k);
  arrays["env"] = array_of("f: /env", PlainType::f32, {pairs, 2, 4, 3}, env);
  return arrays;
}

PlainSource source_of(PlainArrays const& arrays, std::string const& path = "f") {
  return {path, [arrays] { return arrays; }};
}

class PairImportTest : public ::testing::Test {
 protected:
  PairImportOptions out(std::string const& name = "out") { return {.out = folder / name}; }
  std::string refusal(PlainArrays const& arrays) {
    return data_error_of([&] { import_pairs({source_of(arrays)}, out()); });
  }
  TemporaryFolder folder;
};

TEST_F(PairImportTest, EveryPairBecomesTwoRowsOfItsOwnObject) {
  auto options = out();
  options.object_prefix = "plain";
  auto const report = import_pairs({source_of(complete(3))}, options);
  EXPECT_EQ(report.pairs, 3);
  EXPECT_EQ(unit_names(folder / "out"), (Names{"plain-000000/x0/0", "plain-000000/x1/0", "plain-000001/x0/1",
                                               "plain-000001/x1/1", "plain-000002/x0/2", "plain-000002/x1/2"}));
  EXPECT_EQ(pair_names(folder / "out")[2], "plain-000002: x0 > x1");
  EXPECT_EQ(verify_folder(folder / "out"), Names{});
}

TEST_F(PairImportTest, NumbersAndPicturesArriveWhereTheyBelong) {
  import_pairs({source_of(complete(3))}, out());
  auto const index = std::make_shared<ShardIndex const>(folder / "out");
  RawReader const reader(index);
  std::vector<float> latents(6);
  reader.read(0, "latents", 4, latents.data());
  EXPECT_EQ(latents, counted(6, 12));
  reader.read(0, "latents", 5, latents.data());
  EXPECT_EQ(latents, counted(6, 112));
  std::vector<std::uint8_t> pixels(48);
  reader.read(0, "target_images", 5, pixels.data());
  EXPECT_EQ(pixels, std::vector<std::uint8_t>(48, 2));
  reader.read(0, "target_images", 4, pixels.data());
  EXPECT_EQ(pixels, std::vector<std::uint8_t>(48, 0));
  auto const rows = load_pairs(*index).rows;
  EXPECT_EQ(rows[1].env_row, 1);
  EXPECT_EQ(rows[3].env_row, 2);
  EXPECT_EQ(rows[5].env_row, 2) << "equal maps are one";
  std::vector<std::uint16_t> map(24);
  reader.read(0, "env", 2, map.data());
  EXPECT_EQ(map, std::vector<std::uint16_t>(24, to_half(2)));
}

TEST_F(PairImportTest, StatisticsCoverBothEnds) {
  import_pairs({source_of(complete(1))}, out());
  auto const set = load_pairs(ShardIndex(folder / "out"));
  EXPECT_EQ(set.latent_mean, (std::vector<float>{51.5F, 52.5F, 53.5F}));  // of 0, 3, 100, 103 and so on
}

TEST_F(PairImportTest, SourcesFollowEachOtherAcrossShards) {
  auto options = out();
  options.shard_bytes = 1;
  auto const report = import_pairs({source_of(complete(2)), source_of(complete(1), "g")}, options);
  EXPECT_EQ(report.shards, 3);
  auto const index = std::make_shared<ShardIndex const>(folder / "out");
  std::vector<float> latents(6);
  RawReader(index).read(2, "latents", 1, latents.data());
  EXPECT_EQ(latents, counted(6, 100));
}

TEST_F(PairImportTest, OnePairMayLackTheFirstAxis) {
  auto arrays = complete(1);
  for (auto& [name, array] : arrays) {
    auto const shape = std::vector<std::int64_t>(array.shape.begin() + 1, array.shape.end());
    array.read = [whole = array.read](std::int64_t, std::int64_t, void* destination) { whole(0, 1, destination); };
    array.shape = shape;
  }
  EXPECT_EQ(import_pairs({source_of(arrays), source_of(complete(2))}, out()).pairs, 3);
}

TEST_F(PairImportTest, NamesAreGivenLineByLine) {
  put_bytes(folder / "names.csv", "bunny,sun,moon\r\ncow,a,b\n");
  auto options = out();
  options.names = read_pair_names(folder / "names.csv");
  import_pairs({source_of(complete(2))}, options);
  EXPECT_EQ(pair_names(folder / "out"), (Names{"bunny: sun > moon", "cow: a > b"}));
  auto again = out("again");
  again.names = options.names;
  EXPECT_TRUE(
      says(data_error_of([&] { import_pairs({source_of(complete(3))}, again); }), {"names for 2 pairs", "hold 3"}));
  put_bytes(folder / "bad.csv", "a,b,c\na,b\n");
  EXPECT_TRUE(says(data_error_of([&] { read_pair_names(folder / "bad.csv"); }), {"bad.csv line 2", "a,b"}));
}

TEST_F(PairImportTest, LatentsAloneGetPlaceholdersOnRequestOnly) {
  EXPECT_TRUE(says(refusal(complete(1, false)), {"f has no env", "--latents-only"}));
  auto options = out();
  options.latents_only = 8;
  import_pairs({source_of(complete(2, false))}, options);
  ShardIndex const index(folder / "out");
  auto const set = load_pairs(index);
  EXPECT_EQ(set.height, 8);
  EXPECT_EQ(set.targets, 1);
  EXPECT_NE(index.shards()[0].attributes.note.find("placeholders"), std::string::npos);
  EXPECT_EQ(verify_folder(folder / "out"), Names{});
  options.out = folder / "other";
  EXPECT_TRUE(says(data_error_of([&] { import_pairs({source_of(complete(1))}, options); }),
                   {"target_images", "leave that option out"}));
}

TEST_F(PairImportTest, WhatIsMissingIsNamed) {
  for (auto const* name : {"x0", "x1", "target_images", "target_c2w", "target_fxfycxcy", "env"}) {
    auto arrays = complete(2);
    arrays.erase(name);
    EXPECT_TRUE(says(refusal(arrays), {fmt::format("f has no {} ", name)}));
  }
  EXPECT_EQ(folder.files(), Names{});
}

TEST_F(PairImportTest, ShapesAndTypesAreCompared) {
  auto arrays = complete(2);
  arrays["x1"].shape = {2, 3, 2};
  EXPECT_TRUE(says(refusal(arrays), {"f: /x1 is f32 [2,3,2]", "[2,2,3] needed"}));
  arrays = complete(2);
  arrays["target_images"].type = PlainType::f32;
  EXPECT_TRUE(says(refusal(arrays), {"target_images is f32", "u8"}));
  arrays = complete(2);
  arrays["target_c2w"].shape[1] = 2;
  EXPECT_TRUE(says(refusal(arrays), {"target_c2w", "[2,1,4,4] needed"}));
  auto wide = complete(1);
  wide["x0"].shape = wide["x1"].shape = {1, 1, 6};
  EXPECT_TRUE(says(data_error_of([&] {
                     import_pairs({source_of(complete(1)), source_of(wide, "g")}, out());
                   }),
                   {"g has tokens 1", "f has 2"}));
}

TEST_F(PairImportTest, NumbersThatAreNotFiniteAreNamedByRow) {
  for (auto const* name : {"x0", "x1", "env", "target_c2w"}) {
    auto arrays = complete(3);
    auto& array = arrays[name];
    array.read = [whole = array.read](std::int64_t first, std::int64_t rows, void* destination) {
      whole(first, rows, destination);
      if (first == 2) static_cast<float*>(destination)[5] = std::nanf("");
    };
    EXPECT_TRUE(says(refusal(arrays), {fmt::format("f: /{} row 2 number 5 is nan", name)}));
  }
  EXPECT_EQ(folder.files(), Names{}) << "nothing half made";
}

TEST_F(PairImportTest, ACameraThatIsNoneIsNamed) {
  auto arrays = complete(2);
  auto& array = arrays["target_c2w"];
  array.read = [whole = array.read](std::int64_t first, std::int64_t rows, void* destination) {
    whole(first, rows, destination);
    if (first == 1) static_cast<float*>(destination)[0] = -1;  // a mirror
  };
  EXPECT_TRUE(says(refusal(arrays), {"target_c2w row 1 view 0"}));
}

TEST_F(PairImportTest, DoublesAreRoundedAndTypesChosen) {
  auto arrays = complete(1);
  std::vector<double> x(6, 1 + 0x1p-30);
  arrays["x0"] = array_of("f: /x0", PlainType::f64, {1, 2, 3}, x);
  arrays["x1"] = arrays["x0"];
  EXPECT_EQ(import_pairs({source_of(arrays)}, out()).latent_dtype, DType::f32);
  auto options = out("b");
  options.latent_dtype = DType::bf16;
  import_pairs({source_of(arrays)}, options);
  std::vector<std::uint16_t> row(6);
  RawReader(std::make_shared<ShardIndex const>(folder / "b")).read(0, "latents", 0, row.data());
  EXPECT_EQ(row, std::vector<std::uint16_t>(6, to_bf16(1)));
}

// --- .npy ---

std::string npy(std::string const& header, std::string const& numbers, char version = 1) {
  std::string text = "\x93NUMPY";
  text += version;
  text += '\0';
  text += static_cast<char>(header.size() & 255);
  text += static_cast<char>(header.size() >> 8);
  if (version > 1) text += std::string(2, '\0');
  return text + header + numbers;
}

class NpyFileTest : public ::testing::Test {
 protected:
  std::string refusal(std::string const& bytes) {
    put_bytes(folder / "a.npy", bytes);
    return data_error_of([&] { open_npy(folder / "a.npy"); });
  }
  TemporaryFolder folder;
};

TEST_F(NpyFileTest, ShapesAndNumbersAreRead) {
  std::vector<float> const numbers = counted(6, 1);
  std::string const bytes(reinterpret_cast<char const*>(numbers.data()), 24);
  for (char const version : {'\1', '\2', '\3'})
    for (auto const* header : {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }   \n",
                               "{\"shape\":(3,2),\"descr\":\"<f4\",\"fortran_order\":False}"}) {
      put_bytes(folder / "a.npy", npy(header, bytes, version));
      auto const array = open_npy(folder / "a.npy");
      EXPECT_EQ(array.shape, (std::vector<std::int64_t>{3, 2}));
      EXPECT_EQ(array.floats(1), (std::vector<float>{3, 4}));
    }
  put_bytes(folder / "a.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (24,), }", bytes));
  EXPECT_EQ(open_npy(folder / "a.npy").rows(), 24);
}

TEST_F(NpyFileTest, OtherContentsAreRefusedByName) {
  EXPECT_TRUE(says(refusal("no array at all"), {"a.npy", "no .npy file"}));
  EXPECT_TRUE(says(refusal(""), {"no .npy file"}));
  EXPECT_TRUE(says(refusal(npy("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", "xx")),
                   {"Python objects", "never loaded"}));
  EXPECT_TRUE(says(refusal(npy("{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }", "1234")),
                   {"Fortran", "ascontiguousarray"}));
  EXPECT_TRUE(says(refusal(npy("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "1234")), {"big-endian"}));
  EXPECT_TRUE(says(refusal(npy("{'descr': '<V2', 'fortran_order': False, 'shape': (1,), }", "12")), {"<V2", "bf16"}));
  EXPECT_TRUE(
      says(refusal(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "1234")), {"records"}));
  EXPECT_TRUE(
      says(refusal(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", "1234")), {"key 'x'"}));
  EXPECT_TRUE(says(refusal(npy("{'descr': '<f4', 'shape': (1,), }", "1234")), {"once each"}));
  EXPECT_TRUE(says(refusal(npy("__import__('os')", "1234")), {"cannot be understood"}));
  EXPECT_TRUE(
      says(refusal(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "1234", 9)), {"version 9"}));
}

TEST_F(NpyFileTest, NoSizeInAHeaderIsBelieved) {
  auto const of_shape = [](std::string const& shape) {
    return "{'descr': '<f4', 'fortran_order': False, 'shape': (" + shape + "), }";
  };
  EXPECT_TRUE(says(refusal(npy(of_shape("2,"), "1234")), {"needs 8 bytes", "cut short"}));
  EXPECT_TRUE(says(refusal(npy(of_shape("1,"), "12345")), {"its header says"}));
  EXPECT_TRUE(says(refusal(npy(of_shape("4611686018427387904, 4"), "1234")), {"no file holds that"}));
  EXPECT_TRUE(says(refusal(npy(of_shape("0, 4611686018427387904, 8"), "")), {"no file holds that"}));
  EXPECT_TRUE(says(refusal(npy(of_shape("99999999999999999999,"), "1234")), {"a size expected"}));
  EXPECT_TRUE(says(refusal(npy(of_shape("-1,"), "1234")), {"a size expected"}));
  auto const whole = npy(of_shape("1,"), "1234");
  EXPECT_TRUE(says(refusal(whole.substr(0, 30)), {"its header would have", "cut short"}));
  std::string huge = whole;
  huge[9] = '\x7f';
  EXPECT_TRUE(says(refusal(huge), {"its header would have"}));
  for (std::size_t length = 0; length < whole.size(); ++length)
    EXPECT_NE(refusal(whole.substr(0, length)), "") << length;
}

}  // namespace
}  // namespace duoflow::data::testing
