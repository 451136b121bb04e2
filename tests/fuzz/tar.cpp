// Tar archives with a scene list in them, their checksums made right here: members, list and metadata as an ingest
// reads them.

#include <array>
#include <cstdio>
#include <cstring>

#include "data/error.h"
#include "data/ingest/lvsm_scene.h"
#include "data/ingest/scene_list.h"
#include "data/ingest/tar_index.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

constexpr std::size_t kTarBlock = 512, kTarSum = 148;

std::string with_checksums(std::string tar) {
  for (std::size_t at = 0; at + kTarBlock <= tar.size(); at += kTarBlock) {
    if (tar.compare(at + 257, 5, "ustar") != 0) continue;
    tar.replace(at + kTarSum, 8, "        ");
    unsigned sum = 0;
    for (std::size_t i = 0; i < kTarBlock; ++i) sum += static_cast<unsigned char>(tar[at + i]);
    std::array<char, 8> digits{};
    std::snprintf(digits.data(), digits.size(), "%06o", sum);
    tar.replace(at + kTarSum, 7, std::string(digits.data(), 7));
  }
  return tar;
}

bool read_tar(std::string const& input) {
  static MemoryFile const file;
  auto const path = file.holding(with_checksums(input));
  return read_or_refused<data::DataError>([&] {
    data::TarIndex const index(path);
    for (auto const& name : index.entries(""))
      if (index.has_file(name)) index.read(name);
    if (!data::is_archive(path)) return;
    data::SourceFiles files;
    data::IngestOptions options;
    options.scenes = {path};
    for (auto const& scene : data::listed_scenes(files, options))
      data::read_lvsm_scene(files, scene, {{"/far", path}}, nullptr);
  });
}

std::string tar_member(std::string const& name, char type, std::string const& data) {
  std::string block(kTarBlock, '\0');
  block.replace(0, name.size(), name);
  std::array<char, 12> size{};
  std::snprintf(size.data(), size.size(), "%011zo", data.size());
  block.replace(124, 11, std::string(size.data(), 11));
  block[156] = type;
  block.replace(257, 5, "ustar");
  return block + data + std::string((kTarBlock - data.size() % kTarBlock) % kTarBlock, '\0');
}

std::vector<std::string> tar_seeds() {
  std::string const end(2 * kTarBlock, '\0');
  auto const list = tar_member("full_list.txt", '0', "/far/metadata/a_env_0.json\nmetadata/b.json\n");
  auto const scene = tar_member("metadata/a_env_0.json", '0',
                                R"({"frames":[{"image_path":"/far/images/0.png","fxfycxcy":[1,1,1,1],"w2c":[]}]})");
  auto const pax = tar_member("pax", 'x', "24 path=metadata/b.json\n10 size=2\n");
  return {list + scene + end,
          list + pax + tar_member("b", '0', "{}") + end,
          tar_member("long", 'L', "full_list.txt") + tar_member("x", '0', "../../etc/x\n") + end,
          tar_member("d/", '5', "") + tar_member("s", '2', "") + end,
          tar_member("../up", '0', "x") + end,
          list};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(tar, duoflow::fuzz::read_tar, duoflow::fuzz::tar_seeds);
