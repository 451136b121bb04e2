#include "dist/checkpoint/safetensors.h"

#include <limits>

#include "dist/checkpoint/safetensors_file.h"
#include "dist/checkpoint/xxh3.h"
#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

std::vector<NamedTensor> every_dtype() {
  return {{"f32", counted(1, {2, 3})},
          {"f16", counted(0, {5}, at::kHalf)},
          {"bf16", counted(0, {3}, at::kBFloat16)},
          {"f64", counted(2, {2, 1, 2}, at::kDouble)},
          {"i64", counted(3, {4}, at::kLong)},
          {"i32", counted(4, {3}, at::kInt)},
          {"u8", counted(0, {7}, at::kByte)},
          {"bool", at::remainder(counted(0, {3}), 2).to(at::kBool)}};
}

TEST(SafetensorsTest, EveryDtypeComesBack) {
  TemporaryFolder const folder;
  std::string const path = folder / "a.safetensors";
  write_safetensors(path, every_dtype());
  expect_equal(read_safetensors(path), every_dtype());
}

TEST(SafetensorsTest, EmptyScalarAndOrderComeBack) {
  TemporaryFolder const folder;
  std::string const path = folder / "a.safetensors";
  std::vector<NamedTensor> const tensors = {{"z", counted(1, {0})},
                                            {"y", counted(2, {})},
                                            {"x", counted(3, {4, 0, 2})},
                                            {"a \"b\"\n", counted(4, {1})},
                                            {"m", counted(5, {0})}};
  write_safetensors(path, tensors);
  expect_equal(read_safetensors(path), tensors);
  EXPECT_EQ(read_safetensors(path)[2].tensor.sizes().vec(), (std::vector<std::int64_t>{4, 0, 2}));
}

TEST(SafetensorsTest, NoTensorsAndMetadataComeBack) {
  TemporaryFolder const folder;
  std::string const path = folder / "a.safetensors";
  std::map<std::string, std::string> const metadata = {{"format", "pt"}, {"note", "\xc3\xa4 \"x\""}};
  write_safetensors(path, {}, metadata);
  std::map<std::string, std::string> found;
  EXPECT_TRUE(read_safetensors(path, &found).empty());
  EXPECT_EQ(found, metadata);
}

TEST(SafetensorsTest, SpecialValuesKeepTheirBits) {
  TemporaryFolder const folder;
  std::string const path = folder / "a.safetensors";
  auto const bits = at::tensor({0x7fc00001, 0x7f800000, -2147483647 - 1, 1, 0x7fa00000}, at::kInt);
  write_safetensors(path, {{"x", bits.view(at::kFloat)}});
  EXPECT_TRUE(at::equal(read_safetensors(path)[0].tensor.view(at::kInt), bits));
}

TEST(SafetensorsTest, StridedAndDifferentiableTensorsAreWrittenAsTheirValues) {
  TemporaryFolder const folder;
  std::string const path = folder / "a.safetensors";
  auto const transposed = counted(1, {3, 4}).t().requires_grad_(true);
  write_safetensors(path, {{"x", transposed}, {"y", counted(2, {10}).slice(0, 1, 9, 3)}});
  auto const found = read_safetensors(path);
  EXPECT_TRUE(at::equal(found[0].tensor, counted(1, {3, 4}).t()));
  EXPECT_FALSE(found[0].tensor.requires_grad());
  EXPECT_TRUE(at::equal(found[1].tensor, at::tensor({2001.f, 2004.f, 2007.f})));
}

TEST(SafetensorsTest, TensorsHaveTheirOwnMemory) {
  TemporaryFolder const folder;
  std::string const path = folder / "a.safetensors";
  write_safetensors(path, {{"x", counted(1, {4})}});
  auto const found = read_safetensors(path);
  std::filesystem::remove(path);
  found[0].tensor.add_(1);
  EXPECT_EQ(found[0].tensor[3].item<float>(), 1004.f);
}

TEST(SafetensorsTest, DataBeginsAtAMultipleOf64AndEntriesSayWhere) {
  TemporaryFolder const folder;
  std::string const path = folder / "a.safetensors";
  for (std::size_t length = 1; length < 70; ++length) {
    std::string const name(length, 'n');
    std::string file_hash;
    auto const entries = write_safetensors(path, {{name, counted(1, {3})}, {"b", counted(2, {2})}}, {}, &file_hash);
    std::string const bytes = slurp(path);
    ASSERT_EQ(entries[0].offset % 64, 0u);
    ASSERT_EQ(entries[1].offset, entries[0].offset + 12);
    ASSERT_EQ(bytes.size(), entries[1].offset + 8);
    ASSERT_EQ(file_hash, xxh3_of(bytes));
    ASSERT_EQ(entries[1].xxh3, xxh3_of(bytes.substr(entries[1].offset)));
  }
}

TEST(SafetensorsTest, HashIsXxh3WithSeedZero) {
  EXPECT_EQ(xxh3_of(""), "2d06800538d394c2");     // published test value of the empty input
  EXPECT_EQ(xxh3_of("abc"), "78af5f94892f3950");  // xxhsum -H3
}

TEST(SafetensorsTest, HeaderAloneTellsWhatReadingTells) {
  TemporaryFolder const folder;
  std::string const path = folder / "a.safetensors";
  auto const written = write_safetensors(path, every_dtype(), {{"k", "v"}});
  std::map<std::string, std::string> metadata;
  auto const entries = read_safetensors_header(path, &metadata);
  ASSERT_EQ(entries.size(), written.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ(entries[i].name, written[i].name);
    EXPECT_EQ(entries[i].dtype, written[i].dtype);
    EXPECT_EQ(entries[i].shape, written[i].shape);
    EXPECT_EQ(entries[i].offset, written[i].offset);
    EXPECT_EQ(entries[i].bytes, written[i].bytes);
  }
  EXPECT_EQ(metadata.at("k"), "v");
  auto const scanned = scan_safetensors(path, TensorBytes::discard);
  EXPECT_TRUE(scanned.tensors.empty());
  for (std::size_t i = 0; i < entries.size(); ++i) EXPECT_EQ(scanned.header.entries[i].xxh3, written[i].xxh3);
}

TEST(SafetensorsTest, TensorsLongerThanOneChunkComeBack) {
  TemporaryFolder const folder;
  std::string const path = folder / "a.safetensors";
  std::vector<NamedTensor> const tensors = {{"long", counted(1, {700'001})}, {"b", counted(2, {3})}};
  std::string hash;
  write_safetensors(path, tensors, {}, &hash);
  expect_equal(read_safetensors(path), tensors);
  EXPECT_EQ(scan_safetensors(path, TensorBytes::discard).file_hash, hash);
}

TEST(SafetensorsTest, WhatCannotBeStoredIsAnErrorNamingTheTensor) {
  TemporaryFolder const folder;
  std::string const path = folder / "a.safetensors";
  auto const error_of = [&](std::vector<NamedTensor> const& tensors) {
    return checkpoint_error([&] { write_safetensors(path, tensors); });
  };
  EXPECT_TRUE(contains(error_of({{"c", at::zeros({2}, at::kComplexFloat)}}), "\"c\""));
  EXPECT_TRUE(contains(error_of({{"u", at::Tensor()}}), "\"u\" is undefined"));
  EXPECT_TRUE(contains(error_of({{"t", counted(1, {1})}, {"t", counted(2, {1})}}), "\"t\""));
  EXPECT_TRUE(contains(error_of({{"__metadata__", counted(1, {1})}}), "__metadata__"));
  EXPECT_TRUE(contains(error_of({{"\xff", counted(1, {1})}}), "UTF-8"));
  EXPECT_TRUE(names_in(folder.path()).empty());
  EXPECT_TRUE(contains(checkpoint_error([&] { write_safetensors(folder / "no/a", {}); }), "No such file"));
}

}  // namespace
}  // namespace duoflow::dist
