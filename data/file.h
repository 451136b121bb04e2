#pragma once
// Files as bytes: descriptors, whole reads, names that appear only when the bytes are on disk, hashes. Private to data/.

#include <cstddef>
#include <cstdint>
#include <string>

namespace duoflow::data {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(std::string const& path);  // read-only; DataError if it cannot be opened or is no file (a pipe, a folder)
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept;
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;

  std::uint64_t size() const;
  // Reads up to `bytes` bytes at `offset`, fewer only at the end of the file. Retries interrupted and short reads.
  // Returns the count; a failing disk is a std::system_error.
  std::size_t read_at(std::uint64_t offset, void* destination, std::size_t bytes) const;
  // A hint that these bytes will be read, in pieces, at once.
  void will_read(std::uint64_t offset, std::size_t bytes) const;

 private:
  int fd_ = -1;
};

std::string read_text(std::string const& path);  // DataError if it cannot be read or has more than 4 GiB, which no text or picture has
// Under a temporary name, synced, renamed, folder synced: readers see the old text or the new one.
void write_atomically(std::string const& path, std::string const& text);
// The last three steps alone, for a file written by a library.
void sync_and_rename(std::string const& temporary, std::string const& path);
// DataError saying how much is missing when the disk of the file `path` has fewer bytes free.
void require_space(std::string const& path, std::uint64_t bytes);
std::string temporary_name(std::string const& path);  // PATH.tmp-<pid>

std::uint64_t xxh3(void const* bytes, std::size_t count);
std::string hex16(std::uint64_t hash);                       // as hashes are written: 16 hex digits
std::string xxh3_hex(void const* bytes, std::size_t count);  // both of these
std::string xxh3_of_file(std::string const& path);

class RunningXxh3 {  // of bytes that come in pieces
 public:
  RunningXxh3();
  ~RunningXxh3();
  RunningXxh3(RunningXxh3 const&) = delete;
  RunningXxh3& operator=(RunningXxh3 const&) = delete;
  void add(void const* bytes, std::size_t count);
  std::uint64_t value() const;  // of what was added since the start or the last reset()
  void reset();

 private:
  void* state_;
};

}  // namespace duoflow::data
