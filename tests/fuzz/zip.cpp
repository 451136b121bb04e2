// The archive of a .pt file, as it is.

#include "model/reference_checkpoint/zip_archive.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/target.h"
#include "tests/model/reference_checkpoint/bytes_in_memory.h"

namespace duoflow::fuzz {
namespace {

bool read_zip(std::string const& input) {
  return read_or_refused<model::FormatError>([&] {
    model::test::BytesInMemory const source(input);
    model::ZipArchive const archive(source);
    for (auto const& entry : archive.entries()) {
      std::string data(entry.bytes, '\0');
      archive.read(entry, data.data());
    }
  });
}

std::vector<std::string> zip_seeds() {
  auto const two = zip_of_entries({{"a/data.pkl", "some bytes"}, {"a/data/0", std::string(100, 'x')}});
  // The same with the numbers of its end record in the zip64 form.
  auto const end = two.size() - 22;
  auto wide = two.substr(0, end) + little_endian(0x06064b50, 4) + little_endian(44, 8) + std::string(12, '\0') +
              little_endian(2, 8) + little_endian(2, 8) + little_endian(number_at(two, end + 12, 4), 8) +
              little_endian(number_at(two, end + 16, 4), 8) + little_endian(0x07064b50, 4) + std::string(4, '\0') +
              little_endian(end, 8) + little_endian(1, 4) + two.substr(end);
  return {two,
          wide,
          zip_of_entries({}),
          zip_of_entries({{"a", ""}, {"a", ""}}),
          two.substr(0, end),
          "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02M\xe9\x03."};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(zip, duoflow::fuzz::read_zip, duoflow::fuzz::zip_seeds);
