// The pickle in a .pt file, as it is. Nothing of it is run.

#include "model/reference_checkpoint/pickle.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

using namespace std::string_literals;

bool read_pickle(std::string const& input) {
  return read_or_refused<model::FormatError>([&] {
    model::Pickle const pickle(input);
    pickle.root().get("model");
  });
}

std::string const kTensor =
    "ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
    "0X\x03\0\0\0cpuK\x06tQK\0K\x02K\x03\x86K\x03K\x01\x86\x89"
    "ccollections\nOrderedDict\n)RtR"s;

std::vector<std::string> pickle_seeds() {
  return {"\x80\x02}(X\x05\0\0\0model}X\x01\0\0\0w"s + kTensor + "su."s,
          "\x80\x02}q\0(X\x01\0\0\0aq\x01]q\x02(K\x01M,\x01J\xf9\xff\xff\xff\x8a\x06\0\0\0\0\0\xff"
          "G?\xf8\0\0\0\0\0\0eX\x01\0\0\0bq\x03\x88NX\x01\0\0\0xq\x04\x87q\x05u."s,
          "\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os\x8c\x06system\x93."s,
          "ccollections\nOrderedDict\n]((NNteq\0h\0h\0h\0e\x85R."s,
          "ctorch._utils\n_rebuild_parameter\n("s + kTensor + "\x88}tR."s,
          "ctorch\nSize\n((K\1K\2ttR."s,
          "]q\0h\0a."s,
          "\x80\x02]]]]aaa."s};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(pickle, duoflow::fuzz::read_pickle, duoflow::fuzz::pickle_seeds);
