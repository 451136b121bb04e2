#include "model/reference_checkpoint/torch_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>

#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace duoflow::model {
namespace {

constexpr std::uint64_t kMostPickleBytes = std::uint64_t{1} << 26;  // 100,000 tensors take a quarter of it

std::string folder_of(ZipArchive const& archive) {
  constexpr std::string_view name = "data.pkl";
  for (auto const& entry : archive.entries())
    if (entry.name == name || entry.name.ends_with("/data.pkl"))
      return entry.name.substr(0, entry.name.size() - name.size());
  throw FormatError("the zip archive has no data.pkl (torch.save writes one); give a .pt file");
}

std::string read_record(ZipArchive const& archive, std::string const& name) {
  auto const* entry = archive.find(name);
  if (entry == nullptr) return "";
  if (entry->bytes > kMostPickleBytes)
    throw FormatError(
        fmt::format("{} has {} bytes (the tensors should not be in it); save the file again", name, entry->bytes));
  std::string bytes(static_cast<std::size_t>(entry->bytes), '\0');
  archive.read(*entry, bytes.data());
  return bytes;
}

std::string checked_pickle(ZipArchive const& archive, std::string const& folder) {
  if (archive.find(folder + "constants.pkl") != nullptr)
    throw FormatError(
        "the file is a TorchScript program (it has constants.pkl), not a checkpoint; save the model's state dict "
        "instead");
  auto const order = read_record(archive, folder + "byteorder");
  if (!order.empty() && order != "little")
    throw FormatError(fmt::format(
        "its numbers are stored in byte order '{}' (little-endian is read); save it again on such a machine", order));
  return read_record(archive, folder + "data.pkl");
}

struct Extent {
  std::int64_t span = 0;   // elements from the first to behind the last
  std::int64_t numel = 0;  // more than the span: some are the same element
};
// Nothing where an int64 cannot count them. Of an empty tensor the other sizes count too: LibTorch multiplies them.
std::optional<Extent> extent(std::vector<std::int64_t> const& sizes, std::vector<std::int64_t> const& strides) {
  std::int64_t last = 0, numel = 1;
  bool empty = false;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    std::int64_t step = 0;
    auto const size = std::max<std::int64_t>(sizes[i], 1);
    empty = empty || sizes[i] == 0;
    if (__builtin_mul_overflow(numel, size, &numel) || __builtin_mul_overflow(size - 1, strides[i], &step) ||
        __builtin_add_overflow(last, step, &last))
      return std::nullopt;
  }
  if (empty) return Extent{};
  return Extent{last == std::numeric_limits<std::int64_t>::max() ? last : last + 1, numel};
}

char const* storage_class(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "torch FloatStorage";
    case at::kHalf:
      return "torch HalfStorage";
    case at::kBFloat16:
      return "torch BFloat16Storage";
    case at::kDouble:
      return "torch DoubleStorage";
    case at::kLong:
      return "torch LongStorage";
    case at::kInt:
      return "torch IntStorage";
    case at::kByte:
      return "torch ByteStorage";
    case at::kBool:
      return "torch BoolStorage";
    default:
      break;
  }
  throw std::logic_error(fmt::format("no torch storage class is written for {}", c10::toString(dtype)));
}

}  // namespace

TorchFile::TorchFile(ByteSource const& source)
    : archive_(source), folder_(folder_of(archive_)), pickle_(checked_pickle(archive_, folder_)) {}

at::Tensor TorchFile::storage(PickleNode const& node, std::string const& what) {
  auto const name = folder_ + "data/" + node.text;
  auto& kept = storages_[name];
  auto const item = static_cast<std::int64_t>(c10::elementSize(node.dtype));
  if (!kept.defined()) {
    auto const* entry = archive_.find(name);
    if (entry == nullptr)
      throw FormatError(
          fmt::format("{} is missing: its record {} is not in the file; copy the file again", what, name));
    if (entry->bytes % static_cast<std::uint64_t>(item) != 0 ||
        entry->bytes / static_cast<std::uint64_t>(item) != static_cast<std::uint64_t>(node.numel))
      throw FormatError(
          fmt::format("{} should have {} numbers of {} bytes, its record {} has {} bytes; save the file again", what,
                      node.numel, item, name, entry->bytes));
    auto const values = at::empty({node.numel}, at::TensorOptions(node.dtype));
    archive_.read(*entry, values.mutable_data_ptr());
    kept = values;
  }
  if (kept.scalar_type() != node.dtype || kept.numel() != node.numel)
    throw FormatError(
        fmt::format("{} and another tensor disagree about their record {}; save the file again", what, name));
  return kept;
}

at::Tensor TorchFile::tensor(PickleNode const& node, std::string const& what) {
  if (node.kind != PickleNode::Kind::tensor)
    throw FormatError(fmt::format("{} is a {} (a tensor belongs there); give a checkpoint or a state dict", what,
                                  kind_name(node.kind)));
  auto const found = extent(node.sizes, node.strides);
  if (!found || node.offset > node.numel - found->span)
    throw FormatError(fmt::format("{} of shape [{}] does not fit into its record of {} numbers; save the file again",
                                  what, fmt::join(node.sizes, ","), node.numel));
  if (found->numel > node.numel)
    throw FormatError(fmt::format(
        "{} of shape [{}] repeats the {} numbers of its record (an expanded tensor, that a copy could blow up to any "
        "size); save tensor.clone()",
        what, fmt::join(node.sizes, ","), node.numel));
  return storage(node, what).as_strided(node.sizes, node.strides, node.offset);
}

template <class T>
void TorchWriter::number(T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  pickle_.append(bytes, sizeof value);
}

void TorchWriter::none() { op('N'); }
void TorchWriter::boolean(bool value) { op(value ? '\x88' : '\x89'); }

void TorchWriter::integer(std::int64_t value) {
  if (value == static_cast<std::int32_t>(value)) {
    op('J');
    number(static_cast<std::int32_t>(value));
  } else {
    op('\x8a');
    op('\x08');
    number(value);
  }
}

void TorchWriter::real(double value) {
  op('G');
  auto const bits = std::bit_cast<std::uint64_t>(value);
  for (int shift = 56; shift >= 0; shift -= 8) op(static_cast<char>(bits >> shift & 0xff));  // big-endian
}

void TorchWriter::text(std::string const& value) {
  op('X');
  number(static_cast<std::uint32_t>(value.size()));
  pickle_ += value;
}

void TorchWriter::global(char const* module_and_name) {
  op('c');
  std::string text = module_and_name;
  text[text.find(' ')] = '\n';
  pickle_ += text + "\n";
}

// _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, OrderedDict of hooks)
void TorchWriter::tensor(at::Tensor const& value) {
  global("torch._utils _rebuild_tensor_v2");
  begin_tuple();
  begin_tuple();
  text("storage");
  global(storage_class(value.scalar_type()));
  text(std::to_string(storages_.size()));
  text("cpu");
  integer(value.numel());
  end_tuple();
  op('Q');
  integer(0);
  for (auto const numbers : {value.sizes(), value.strides()}) {
    begin_tuple();
    for (auto const item : numbers) integer(item);
    end_tuple();
  }
  boolean(false);
  global("collections OrderedDict");
  op(')');
  op('R');
  end_tuple();
  op('R');
  storages_.push_back(value);
}

void TorchWriter::begin_dict() {
  op('}');
  op('(');
}
void TorchWriter::end_dict() { op('u'); }
void TorchWriter::begin_list() {
  op(']');
  op('(');
}
void TorchWriter::end_list() { op('e'); }
void TorchWriter::begin_tuple() { op('('); }
void TorchWriter::end_tuple() { op('t'); }

void TorchWriter::write(Sink const& sink) {
  op('.');
  caffe2::serialize::PyTorchStreamWriter writer([&sink](void const* data, std::size_t bytes) {
    sink(data, bytes);
    return bytes;
  });
  writer.writeRecord("data.pkl", pickle_.data(), pickle_.size());
  writer.writeRecord("byteorder", "little", 6);
  for (std::size_t i = 0; i < storages_.size(); ++i)
    writer.writeRecord("data/" + std::to_string(i), storages_[i].const_data_ptr(), storages_[i].nbytes());
  writer.writeEndOfFile();
}

}  // namespace duoflow::model
