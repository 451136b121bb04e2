#pragma once
// What torch.save writes: a zip archive of one pickle and one record per tensor storage. Read without running the
// pickle; written so that torch.load(weights_only=True) reads it.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "model/reference_checkpoint/pickle.h"
#include "model/reference_checkpoint/zip_archive.h"

namespace duoflow::model {

class TorchFile {
 public:
  explicit TorchFile(ByteSource const& source);  // must outlive this. FormatError

  PickleNode const& root() const { return pickle_.root(); }
  // In own memory; tensors of one storage share it. The node must be a tensor. FormatError: `what` is not in the file,
  // lies outside its storage or repeats its numbers, or has another hash than was stored with it.
  at::Tensor tensor(PickleNode const& node, std::string const& what);

 private:
  at::Tensor storage(PickleNode const& node, std::string const& what);

  ZipArchive archive_;
  std::string folder_;  // of the archive: all records lie in one
  Pickle pickle_;
  std::map<std::string, at::Tensor> storages_;
};

// Builds a pickle of protocol 2 and the records beside it.
class TorchWriter {
 public:
  using Sink = std::function<void(void const* data, std::size_t bytes)>;

  void none();
  void boolean(bool value);
  void integer(std::int64_t value);
  void real(double value);
  void text(std::string const& value);
  void tensor(at::Tensor const& value);  // contiguous on the CPU; kept until written
  // Between begin_ and end_ come the items, of a dict a key before each value.
  void begin_dict();
  void end_dict();
  void begin_list();
  void end_list();
  void begin_tuple();
  void end_tuple();

  void write(Sink const& sink);  // the whole file; once, when every begin has its end

 private:
  void global(char const* module_and_name);
  template <class T>
  void number(T value);
  void op(char code) { pickle_.push_back(code); }

  std::string pickle_{"\x80\x02"};
  std::vector<at::Tensor> storages_;
};

}  // namespace duoflow::model
