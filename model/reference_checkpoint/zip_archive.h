#pragma once
// Reads the zip files that torch.save writes: entries stored as they are, not compressed; zip64 where they are large.
// https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (4.3). Every number of the file is checked before it is
// used.

#include <map>
#include <string>
#include <vector>

#include "model/reference_checkpoint/byte_source.h"

namespace duoflow::model {

class ZipArchive {
 public:
  struct Entry {
    std::string name;
    std::uint64_t bytes = 0, header_offset = 0;
    std::uint32_t crc = 0;
  };

  // `source` must outlive this. FormatError: no zip (the format of torch before 1.6 is named), cut short, or
  // contradicting itself.
  explicit ZipArchive(ByteSource const& source);

  std::vector<Entry> const& entries() const { return entries_; }
  Entry const* find(std::string const& name) const;  // null: not there
  // The entry's bytes. FormatError when they do not have the hash that was stored with them.
  void read(Entry const& entry, void* data) const;

 private:
  struct Directory {
    std::uint64_t offset = 0, bytes = 0, entries = 0;
  };
  Directory find_directory() const;
  void read_directory(Directory const& directory);

  ByteSource const& source_;
  std::vector<Entry> entries_;
  std::map<std::string, std::size_t> by_name_;
};

std::uint32_t crc32(void const* data, std::size_t bytes);  // ISO 3309, as zip uses it

}  // namespace duoflow::model
