#pragma once
// Files of weights: .safetensors, and the .pt files of the LVSM family's code. What opens a file for
// model/reference_checkpoint.

#include <string>
#include <vector>

#include "dist/checkpoint/safetensors.h"
#include "model/reference_checkpoint/byte_source.h"

namespace duoflow::launch {

class FileBytes : public model::ByteSource {
 public:
  explicit FileBytes(std::string path);  // CheckpointError: no regular file that can be read
  ~FileBytes() override;
  FileBytes(FileBytes const&) = delete;
  FileBytes& operator=(FileBytes const&) = delete;
  std::uint64_t size() const override { return size_; }
  void read(std::uint64_t offset, void* data, std::size_t bytes) const override;

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

// The family's loss networks, which its state dict holds and no model here has.
bool is_loss_network(std::string const& name);

// Whether load_weights and step take `path` for one file of weights rather than a checkpoint or run folder.
bool is_weights_file(std::string const& path);
// `path` itself, or, where it is a folder of .pt files and no checkpoint or run, the last of them by name: which the
// family's code takes.
std::string weights_file_at(std::string const& path);
// Its tensors, the family's loss networks left out (said once). CheckpointError, beginning with `path`.
std::vector<dist::NamedTensor> read_weights_file(std::string const& path);
// CheckpointError naming a tensor that holds integers or numbers that are not finite: a model started from it would
// skip every step.
void require_real_numbers(std::vector<dist::NamedTensor> const& tensors, std::string const& origin);

}  // namespace duoflow::launch
