#pragma once
// Reads the pickle in a torch.save file without running it: plain containers, numbers, texts and references to tensors,
// which is all that a checkpoint needs. Whatever else a pickle can ask for - any other class or function - is an error
// that names it. Opcodes as in CPython's Lib/pickletools.py. Memory follows the pickle's own length: values that a few
// bytes would copy again and again, or more than 4 million of them, are an error.

#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <c10/core/ScalarType.h>

#include "model/reference_checkpoint/byte_source.h"

namespace duoflow::model {

struct PickleNode {
  enum class Kind { none, boolean, integer, real, text, tuple, list, dict, global, storage, tensor };
  Kind kind = Kind::none;
  std::int64_t integer = 0;  // boolean too
  double real = 0;           // integers too
  std::string text;          // of a global: "module name"; of a storage or a tensor: the name of the data's record
  std::vector<PickleNode const*> items;                                  // tuple, list
  std::vector<std::pair<PickleNode const*, PickleNode const*>> entries;  // dict, in the order they were put in
  c10::ScalarType dtype = c10::ScalarType::Float;                        // storage, tensor
  std::int64_t numel = 0, offset = 0;  // of the storage; the tensor's first element in it
  std::vector<std::int64_t> sizes, strides;

  // The value of a dict's text key; null: not there, or no dict.
  PickleNode const* get(std::string_view key) const;
};

// The nodes own nothing of one another (a pickle may hold cycles): they live as long as this.
class Pickle {
 public:
  explicit Pickle(std::string_view bytes);  // FormatError
  Pickle(Pickle const&) = delete;
  Pickle& operator=(Pickle const&) = delete;
  PickleNode const& root() const { return *root_; }

 private:
  friend class PickleMachine;
  std::deque<PickleNode> nodes_;
  PickleNode const* root_ = nullptr;
};

char const* kind_name(PickleNode::Kind kind);

}  // namespace duoflow::model
