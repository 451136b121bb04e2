#pragma once
// Takes this process's stderr for its lifetime: into a file, or into a terminal of the given width.

#include <string>

namespace duoflow::launch {

class CapturedStderr {
 public:
  CapturedStderr();                      // a file
  explicit CapturedStderr(int columns);  // a pseudo-terminal; text beyond 4096 bytes unread would block
  ~CapturedStderr();
  CapturedStderr(CapturedStderr const&) = delete;
  CapturedStderr& operator=(CapturedStderr const&) = delete;

  std::string text();  // written since the last call; the terminal's \r\n come as \n

 private:
  int original_, source_ = -1;
};

}  // namespace duoflow::launch
