#pragma once
// SampleLog: which samples were trained on, as text, one line for each:
//   position in the order, number of the data folder, number of the pair or scene in it, xxh3 of all its bytes
// (latents, pictures, light and cameras of the views drawn), separated by tabs.

#include <fstream>
#include <string>

#include "data/loading/loader.h"

namespace duoflow::data {

class SampleLog {
 public:
  // Appends; makes the folder. DataError if the file cannot be written.
  explicit SampleLog(std::string const& path);
  // A batch of make_ordered_source. On disk (but for a crash of the machine) when it returns.
  void write(Batch const& batch, BatchSource const& source);

 private:
  std::string path_;
  std::ofstream file_;
};

}  // namespace duoflow::data
