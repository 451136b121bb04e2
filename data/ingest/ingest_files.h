#pragma once
// What an ingest learns about every file before it writes anything. Private to data/.

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "data/images/image_io.h"
#include "data/ingest/ingest_lvsm.h"
#include "data/ingest/source_files.h"

namespace duoflow::data {

struct FileWish {
  enum class Kind { picture, light_code, light_source } kind = Kind::picture;
  double strength = 1;  // of a light source: the largest it is used with
};
struct FileFacts {
  ImageSize size;            // as it will be decoded
  std::string xxh3;          // of the file's bytes
  bool missing = false;
  std::string problem;       // "": whole and usable
  std::string warning;
};
using FileTable = std::map<std::string, FileFacts>;  // by path

// Every file read and checked once; the work is shared by the workers when there is an exchange, else each does it all.
FileTable check_files(SourceFiles const& files, std::map<std::string, FileWish> const& wanted, IngestOptions const& options);

// The file's bytes, which must still be those that were checked (DataError).
std::string read_checked(SourceFiles const& files, FileTable const& table, std::string const& path);

}  // namespace duoflow::data
