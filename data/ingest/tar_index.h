#pragma once
// A plain tar archive (POSIX, pax or GNU long names) whose members are read in place. Private to data/.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/file.h"

namespace duoflow::data {

// By its first bytes: a tar, or a compressed file that is named like one.
bool is_archive(std::string const& path);

class TarIndex {
 public:
  // DataError naming the archive and member: compressed, cut short, damaged headers, a member whose name is absolute or climbs out
  // ("../"), a link, a sparse or special file. Of two members with one name the later counts, as for tar.
  explicit TarIndex(std::string const& path);

  bool has_file(std::string const& name) const { return members_.count(name) != 0; }
  bool has_folder(std::string const& name) const;  // "" is the root
  std::vector<std::string> entries(std::string const& folder) const;  // names of files and folders in it, sorted
  std::string read(std::string const& name) const;

 private:
  struct Member {
    std::uint64_t offset = 0, size = 0;
  };
  void scan();

  std::string path_;
  FileDescriptor file_;
  std::map<std::string, Member> members_;
};

}  // namespace duoflow::data
