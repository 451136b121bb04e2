#include "launch/disk_space.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fmt/format.h>

#include "dist/checkpoint/file_io.h"
#include "dist/error.h"

namespace duoflow::launch {
namespace {

double mib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

int checkpoints_there(std::string const& directory) {
  auto const names = dist::list_folder(directory);
  return static_cast<int>(std::count_if(names.begin(), names.end(), [](auto const& name) { return name.starts_with("step_"); }));
}

}  // namespace

std::string check_disk_space(std::string const& directory, std::uint64_t bytes, int keep_last) {
  auto place = directory;  // the nearest folder that is there: nothing is made for a run that may not begin
  while (!dist::path_exists(place)) place = dist::parent_folder(place);
  struct statvfs disk {};
  if (::statvfs(place.c_str(), &disk) != 0)
    throw dist::CheckpointError(fmt::format("{}: cannot look at its disk ({})", directory,
                                            std::generic_category().message(errno)));
  auto const free = static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize;
  if (free < bytes)
    throw dist::CheckpointError(
        fmt::format("{}: a checkpoint takes {:.1f} MiB and the disk has {:.1f} MiB free; make room or choose another "
                    "--run folder",
                    directory, mib(bytes), mib(free)));
  auto const more = std::max(0, keep_last + 1 - checkpoints_there(directory));
  if (free >= static_cast<std::uint64_t>(more) * bytes) return "";
  return fmt::format("{}: {} checkpoints of {:.1f} MiB are to be there at once (training.keep_last and the one being "
                     "written), the disk has {:.1f} MiB free: make room or lower training.keep_last",
                     directory, keep_last + 1, mib(bytes), mib(free));
}

}  // namespace duoflow::launch
