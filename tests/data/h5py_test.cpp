// The files as Python's h5py sees them, and files that h5py made.

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "data/shards/raw_reader.h"
#include "data/shards/shard_writer.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

std::string interpreter() { return std::string(DUOFLOW_SOURCE_DIR) + "/.venv/bin/python"; }

// Runs a script with `folder` as its argument; returns what it printed, errors included.
std::string python(std::string const& script, TemporaryFolder const& folder) {
  put_bytes(folder / "script.py", "import sys, numpy as np, h5py\nfolder = sys.argv[1]\n" + script);
  auto const command = fmt::format("{} {} {} 2>&1", interpreter(), folder / "script.py", folder.path());
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
  std::string text;
  std::array<char, 4096> buffer;
  while (auto const got = std::fread(buffer.data(), 1, buffer.size(), pipe.get())) text.append(buffer.data(), got);
  return text;
}

class H5pyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    static bool const present = std::system((interpreter() + " -c 'import h5py, numpy' >/dev/null 2>&1").c_str()) == 0;
    if (!present) GTEST_SKIP() << "no h5py in " << interpreter();
  }
  TemporaryFolder folder;
};

TEST_F(H5pyTest, ReadsEveryTypeWeWrite) {
  std::vector<DatasetSpec> const specs = {{"u8", DType::u8, {4}},     {"i64", DType::i64, {4}}, {"f16", DType::f16, {4}},
                                          {"bf16", DType::bf16, {6}}, {"f32", DType::f32, {4}}, {"scene/object", DType::name, {2}}};
  ShardWriter writer(folder / "a.h5", ShardKind::scene, specs, {"hash", {0.5F, -1}, {1, 2}, "a \xc3\xa9 note"});
  std::uint8_t const u8[] = {0, 1, 128, 255};
  std::int64_t const i64[] = {0, -1, 1LL << 40, -(1LL << 40)};
  std::uint16_t const f16[] = {0x0000, 0x3c00, 0xc000, 0x7bff};                   // 0 1 -2 65504
  std::uint16_t const bf16[] = {0x0000, 0x3f80, 0xc000, 0x7f7f, 0x0001, 0x3eab};  // 0 1 -2 largest, smallest, 0.333984375
  float const f32[] = {0, 1.5F, -2, 1e30F};
  writer.write("u8", 0, 4, u8);
  writer.write("i64", 0, 4, i64);
  writer.write("f16", 0, 4, f16);
  writer.write("bf16", 0, 6, bf16);
  writer.write("f32", 0, 4, f32);
  writer.write_names("scene/object", {"bunny", "caf\xc3\xa9"});
  writer.close();
  EXPECT_EQ(python(R"(
f = h5py.File(folder + '/a.h5', 'r')
assert (f['u8'][:] == [0, 1, 128, 255]).all()
assert (f['i64'][:] == [0, -1, 2**40, -2**40]).all()
assert f['f16'].dtype == np.float16 and (f['f16'][:] == [0, 1, -2, 65504]).all()
exact = (np.array([0, 0x3f80, 0xc000, 0x7f7f, 1, 0x3eab], np.uint32) << 16).view(np.float32)
assert (f['bf16'][:].astype(np.float32) == exact).all(), f['bf16'][:]
assert f['bf16'].id.get_type().get_size() == 2
raw = np.empty(6, np.uint16)
f['bf16'].id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, mtype=f['bf16'].id.get_type())
assert (raw == [0, 0x3f80, 0xc000, 0x7f7f, 1, 0x3eab]).all(), raw
assert (f['f32'][:] == np.array([0, 1.5, -2, 1e30], np.float32)).all()
assert [n.decode() for n in f['scene/object'][:]] == ['bunny', 'caf\u00e9'], f['scene/object'][:]
text = lambda name: f.attrs[name].decode() if isinstance(f.attrs[name], bytes) else str(f.attrs[name])
assert f.attrs['schema_version'] == 1 and text('kind') == 'scene' and text('producer') == 'hash'
assert text('note') == 'a \u00e9 note', f.attrs['note']
assert text('camera_convention') == 'opencv c2w, pixel corners at integers'
assert text('image_colour') == '8-bit gamma 1/2.2 over white'
assert (f.attrs['latent_mean'] == [0.5, -1]).all() and (f.attrs['latent_std'] == [1, 2]).all()
for d in (f['u8'], f['bf16'], f['scene/object']): assert d.chunks is None and d.id.get_offset() is not None
print('ok')
)",
                   folder),
            "ok\n");
}

// Files of other makers, all with values[r][c] = 10 r + c.
class ForeignShardTest : public H5pyTest {
 protected:
  std::string make(std::string const& create, std::string const& open = "h5py.File(folder + '/a.h5', 'w')") {
    return python(fmt::format("with {} as f:\n"
                              "    f.attrs['schema_version'] = 1\n    f.attrs['kind'] = 'scene'\n"
                              "    v = (10 * np.arange(40)[:, None] + np.arange(20)[None, :])\n    {}\n",
                              open, create),
                  folder);
  }
  void expect_rows_of(bool raw) {
    write_manifest(folder.path(), ShardKind::scene, {"a.h5"});
    auto const index = std::make_shared<ShardIndex const>(folder.path());
    EXPECT_EQ(index->shards()[0].datasets.at("values").raw, raw);
    EXPECT_EQ(index->shards()[0].datasets.at("values").spec.dtype, DType::f32);
    RawReader const reader(index);
    std::vector<float> row(20);
    for (std::int64_t r = 0; r < 40; ++r) {
      reader.read(0, "values", r, row.data());
      for (std::size_t c = 0; c < 20; ++c) ASSERT_EQ(row[c], static_cast<float>(10 * r) + static_cast<float>(c));
    }
    reader.read_part(0, "values", 3, 8, 4, row.data());
    EXPECT_EQ(row[0], 32);
    auto const problems = verify_folder(folder.path());
    ASSERT_EQ(problems.size(), 1U);
    EXPECT_TRUE(says(problems[0], {"a.h5", "no dataset images"}));
  }
};

TEST_F(ForeignShardTest, ContiguousOnesAreReadDirectly) {
  ASSERT_EQ(make("f['values'] = v.astype('<f4')"), "");
  expect_rows_of(true);
}

TEST_F(ForeignShardTest, AUserBlockDoesNotShiftRows) {
  ASSERT_EQ(make("f['values'] = v.astype('<f4')", "h5py.File(folder + '/a.h5', 'w', userblock_size=1024)"), "");
  expect_rows_of(true);
}

struct Form {
  char const *name, *why, *create;
  int user_block = 0;
};

class SlowFormTest : public ForeignShardTest, public ::testing::WithParamInterface<Form> {};

TEST_P(SlowFormTest, GoesThroughHdf5AndSaysWhyOnce) {
  auto const& form = GetParam();
  ASSERT_EQ(make(form.create, fmt::format("h5py.File(folder + '/a.h5', 'w', userblock_size={})", form.user_block)), "");
  ::testing::internal::CaptureStderr();
  expect_rows_of(false);
  auto const said = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(says(said, {"a.h5: dataset values", form.why, "repack"}));
  EXPECT_EQ(said.find("note:"), said.rfind("note:")) << said;
}

INSTANTIATE_TEST_SUITE_P(
    , SlowFormTest,
    ::testing::Values(
        Form{"Chunks", "(chunks)", "f.create_dataset('values', data=v.astype('<f4'), chunks=(7, 5))"},
        Form{"ChunksOfARow", "(chunks)", "f.create_dataset('values', data=v.astype('<f4'), chunks=(1, 20))"},
        Form{"ChunksOfARowBehindAUserBlock", "(chunks)", "f.create_dataset('values', data=v.astype('<f4'), chunks=(1, 20))", 1024},
        Form{"Compressed", "(chunks with a filter", "f.create_dataset('values', data=v.astype('<f4'), compression='gzip')"},
        Form{"Checksummed", "(chunks with a filter", "f.create_dataset('values', data=v.astype('<f4'), fletcher32=True)", 512},
        Form{"BigEndian", "(big-endian numbers)", "f['values'] = v.astype('>f4')"},
        Form{"BigEndianBehindAUserBlock", "(big-endian numbers)", "f['values'] = v.astype('>f4')", 1024},
        Form{"External", "(its bytes are in other files)",
             "f.create_dataset('values', data=v.astype('<f4'), external=[(folder + '/values.bin', 0, 40 * 20 * 4)])"},
        Form{"Virtual", "(a virtual data set)",
             "s = h5py.File(folder + '/source.hdf5', 'w'); s['v'] = v.astype('<f4'); s.close(); l = h5py.VirtualLayout((40, 20), '<f4'); "
             "l[:] = h5py.VirtualSource(folder + '/source.hdf5', 'v', (40, 20)); f.create_virtual_dataset('values', l)"},
        Form{"Compact", "(stored inside its header)",
             "p = h5py.h5p.create(h5py.h5p.DATASET_CREATE); p.set_layout(h5py.h5d.COMPACT); d = h5py.h5d.create(f.id, b'values', "
             "h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((40, 20)), p); d.write(h5py.h5s.ALL, h5py.h5s.ALL, v.astype('<f4'))"}),
    [](auto const& form) { return std::string(form.param.name); });

// Contiguous, but HDF5 gives it no place in the file before something is written: its rows are the fill value.
TEST_F(ForeignShardTest, ANeverWrittenOneIsReadAsItsFillValue) {
  ASSERT_EQ(make("f.create_dataset('values', (40, 20), '<f4', fillvalue=2.5)"), "");
  write_manifest(folder.path(), ShardKind::scene, {"a.h5"});
  auto const index = std::make_shared<ShardIndex const>(folder.path());
  EXPECT_FALSE(index->shards()[0].datasets.at("values").raw);
  std::vector<float> row(20);
  ::testing::internal::CaptureStderr();
  RawReader(index).read(0, "values", 39, row.data());
  EXPECT_TRUE(says(::testing::internal::GetCapturedStderr(), {"a.h5: dataset values", "never written"}));
  EXPECT_EQ(row, std::vector<float>(20, 2.5F));
}

TEST_F(ForeignShardTest, ADamagedCompressedOneIsNamed) {
  ASSERT_EQ(make("f.create_dataset('values', data=v.astype('<f4'), compression='gzip', chunks=(40, 20))"), "");
  write_manifest(folder.path(), ShardKind::scene, {"a.h5"});
  auto const index = std::make_shared<ShardIndex const>(folder.path());
  flip_byte(folder / "a.h5", std::filesystem::file_size(folder / "a.h5") - 20);
  std::vector<float> row(20);
  EXPECT_TRUE(says(data_error_of([&] { RawReader(index).read(0, "values", 0, row.data()); }), {"a.h5", "values"}));
}

TEST_F(ForeignShardTest, MarkedSixteenBitIntegersAreBfloat16) {
  ASSERT_EQ(make("d = f.create_dataset('values', data=v.astype('<u2')); d.attrs['dtype'] = 'bfloat16'"), "");
  write_manifest(folder.path(), ShardKind::scene, {"a.h5"});
  auto const index = std::make_shared<ShardIndex const>(folder.path());
  EXPECT_EQ(index->shards()[0].datasets.at("values").spec.dtype, DType::bf16);
  std::vector<std::uint16_t> row(20);
  RawReader(index).read(0, "values", 2, row.data());
  EXPECT_EQ(row[3], 23);
}

// A shard is one file, or files of one folder: what HDF5 can be told to open beside it is refused.
TEST_F(ForeignShardTest, BytesOutsideTheFolderAreRefused) {
  std::filesystem::create_directories(folder / "in");
  std::string const open = "h5py.File(folder + '/in/a.h5', 'w')";
  auto const error = [&] { return data_error_of([&] { write_manifest(folder / "in", ShardKind::scene, {"a.h5"}); }); };
  for (auto const* create : {"f.create_dataset('values', data=v.astype('<f4'), external=[(folder + '/values.bin', 0, 40 * 20 * 4)])",
                             "f.create_dataset('values', data=v.astype('<f4'), external=[(folder + '/in/../values.bin', 0, 40 * 20 * 4)])",
                             "s = h5py.File(folder + '/source.hdf5', 'w'); s['v'] = v.astype('<f4'); s.close(); "
                             "l = h5py.VirtualLayout((40, 20), '<f4'); l[:] = h5py.VirtualSource('../source.hdf5', 'v', (40, 20)); "
                             "f.create_virtual_dataset('values', l)"}) {
    ASSERT_EQ(make(create, open), "");
    EXPECT_TRUE(says(error(), {"in/a.h5:values", "must not reach out of it"})) << create;
  }
}

TEST_F(ForeignShardTest, ADatasetThatItsFileCannotHoldIsRefused) {
  for (auto const* create : {"f.create_dataset('values', (1 << 40, 20), '<f4', chunks=(1024, 20))",
                             "f.create_dataset('values', (3, 1 << 40, 1 << 18), 'u1', chunks=(1, 64, 64))"}) {
    ASSERT_EQ(make(create), "");
    EXPECT_TRUE(says(data_error_of([&] { write_manifest(folder.path(), ShardKind::scene, {"a.h5"}); }), {"a.h5:values", "can hold"})) << create;
  }
}

// The library writes every text of an attribute to wherever it is asked to read one.
TEST_F(ForeignShardTest, AnAttributeOfSeveralTextsIsRefused) {
  for (auto const* create : {"f['values'] = v.astype('<f4'); f.attrs['producer'] = np.array([b'ab' * 40] * 500)",
                             "f['values'] = v.astype('<f4'); f.attrs['producer'] = ['x', 'y', 'z']"}) {
    ASSERT_EQ(make(create), "");
    EXPECT_TRUE(says(data_error_of([&] { write_manifest(folder.path(), ShardKind::scene, {"a.h5"}); }), {"producer", "not one text"})) << create;
  }
}

// The rows would be written behind the end of the caller's memory.
TEST_F(ForeignShardTest, ATypeThatTheManifestDoesNotSayIsRefused) {
  ASSERT_EQ(make("f.create_dataset('values', data=v.astype('<f4'), compression='gzip')"), "");
  write_manifest(folder.path(), ShardKind::scene, {"a.h5"});
  auto manifest = file_bytes(folder / "manifest.json");
  auto const at = manifest.find("\"dtype\":\"f32\"");
  ASSERT_NE(at, std::string::npos);
  put_bytes(folder / "manifest.json", rehashed(manifest.replace(at, 13, "\"dtype\":\"u8\"")));
  std::vector<std::uint8_t> row(20);
  auto const index = std::make_shared<ShardIndex const>(folder.path());
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(says(data_error_of([&] { RawReader(index, Verify::never).read(0, "values", 0, row.data()); }), {"a.h5:values is f32", "says u8"}));
  ::testing::internal::GetCapturedStderr();
}

TEST_F(ForeignShardTest, OtherTypesAndUnmarkedFilesAreRefusedByName) {
  auto const error = [&] { return data_error_of([&] { write_manifest(folder.path(), ShardKind::scene, {"a.h5"}); }); };
  for (auto const* create : {"f['values'] = v.astype('<f8')", "f['values'] = v.astype('<i4')", "f['values'] = np.array([b'ab', b'c'])",
                             "f.create_dataset('values', data=['a', 'b'])", "f['values'] = v > 3", "f['values'] = v.astype('>u2')",
                             "f['values'] = np.zeros(4, [('x', '<f4'), ('y', '<f4')])", "f['values'] = np.zeros(4, 'V2')",
                             "f.create_dataset('values', (2,), h5py.vlen_dtype(np.float32))",
                             "f['values'] = v.astype('<c8')"}) {
    ASSERT_EQ(make(create), "");
    EXPECT_TRUE(says(error(), {"a.h5", "values", "convert"})) << create;
  }
  ASSERT_EQ(make("f['values'] = np.float32(1)"), "");
  EXPECT_TRUE(says(error(), {"a.h5", "values", "shape []"}));
  ASSERT_EQ(make("f.attrs['schema_version'] = 9"), "");
  EXPECT_TRUE(says(error(), {"a.h5", "schema version 9", "up to 1"}));
  ASSERT_EQ(make("del f.attrs['kind']"), "");
  EXPECT_TRUE(says(error(), {"a.h5", "kind"}));
}

}  // namespace
}  // namespace duoflow::data::testing
