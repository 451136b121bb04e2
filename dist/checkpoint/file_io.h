#pragma once
// File operations of checkpoints: each system call checked, EINTR and short transfers handled, everything that must
// survive a power cut synced. All failures throw CheckpointError naming the path, the call and the system's reason.
//
// Durable means: file synced, then its folder synced (a new name lives in the folder, not in the file).
// Plain POSIX: the wheel's LibTorch exports a std::filesystem of its own, and a program linked in an unlucky order gets
// that one.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace duoflow::dist {

enum class FileOperation { open, write, sync, make_folder, rename, sync_folder, remove };

// Called before every modifying operation, from any thread; a value other than 0 makes the operation fail with this
// errno. Tests use it to fail (or end) the process at every point of a write. Null: none.
using FaultHook = std::function<int(FileOperation, std::string const& path)>;
void set_fault_hook(FaultHook hook);  // not while files are being written

class OutputFile {  // created or emptied
 public:
  explicit OutputFile(std::string path);
  ~OutputFile();  // closes; a file not finished may hold anything
  OutputFile(OutputFile const&) = delete;
  OutputFile& operator=(OutputFile const&) = delete;
  void write(void const* data, std::size_t bytes);
  void finish();  // syncs and closes

 private:
  void start_writeback();

  std::string path_;
  int descriptor_ = -1;
  std::uint64_t written_ = 0, handed_over_ = 0;
};

class InputFile {  // an existing regular file (a pipe or device is an error), read front to back
 public:
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(InputFile const&) = delete;
  InputFile& operator=(InputFile const&) = delete;
  std::uint64_t size() const { return size_; }  // when opened
  void read(void* data, std::size_t bytes);     // exactly; the file ending earlier is an error

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0, position_ = 0;
};

// Texts of ours are far smaller than this; what is larger, as a file with a hole can be without filling a disk, is an
// error.
inline constexpr std::uint64_t kMostTextBytes = std::uint64_t{1} << 30;
std::string read_text_file(std::string const& path, std::uint64_t most_bytes = kMostTextBytes);
void write_text_file(std::string const& path, std::string const& text);  // synced, its folder not
// Readers see the old text or the new one, never a mixture or nothing. `temporary` lies in the same folder.
void replace_text_file(std::string const& path, std::string const& temporary, std::string const& text);

bool path_exists(std::string const& path);
void make_folders(std::string const& path);  // with parents, each durable; an existing folder is fine
void sync_folder(std::string const& path);
void rename_path(std::string const& from, std::string const& to);
// Swaps the names of two folders in one step where the file system can (Linux local ones), else in two renames through
// `aside`, between which `to` does not exist.
void swap_folders(std::string const& from, std::string const& to, std::string const& aside);
void remove_tree(std::string const& path);                      // nothing there is fine
std::vector<std::string> list_folder(std::string const& path);  // names, sorted; empty if there is no such folder
std::string parent_folder(std::string const& path);             // "." for a bare name

}  // namespace duoflow::dist
