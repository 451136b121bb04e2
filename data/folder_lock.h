#pragma once
// One writer per output folder.

#include <string>

namespace duoflow::data {

// Creates the folder when needed and holds an advisory lock (flock) on FOLDER/writer.lock until destroyed. The kernel frees the lock
// when its process ends, however that happens: a crash leaves a file but no lock. Under mpirun the job is one writer: rank 0
// holds it. Across hosts it works where the file system passes flock on (NFS 4, Lustre with -o flock).
// DataError naming the folder and the other writer's process when somebody else holds it.
class FolderLock {
 public:
  enum class WithoutLocks { refuse, go_on };  // on a file system that has none
  explicit FolderLock(std::string const& folder, WithoutLocks without = WithoutLocks::refuse);
  ~FolderLock();  // removes the file, and the folder when it was made here and is empty
  FolderLock(FolderLock const&) = delete;
  bool held() const { return held_; }  // false: the file system has no locks, another writer would not be noticed

 private:
  std::string folder_, path_;
  bool made_folder_ = false, held_ = true;
  int fd_ = -1;
};

}  // namespace duoflow::data
