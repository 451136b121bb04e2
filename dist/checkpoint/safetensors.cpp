#include "dist/checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <future>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "dist/checkpoint/file_io.h"
#include "dist/checkpoint/safetensors_file.h"
#include "dist/checkpoint/xxh3.h"
#include "dist/error.h"

namespace duoflow::dist {
namespace {

// The limit of the format's own library: a damaged length must not make a reader allocate what it says.
constexpr std::uint64_t max_header_bytes = 100'000'000;
// Small enough that the second hash finds the bytes in the cache.
constexpr std::size_t chunk_bytes = std::size_t{1} << 20;

struct HeaderText {
  std::string length_field, json;
};

HeaderText read_header_text(InputFile& file, std::string const& path) {
  HeaderText text;
  std::uint64_t length = 0;
  text.length_field.resize(sizeof length);
  if (file.size() < sizeof length) {
    throw CheckpointError(fmt::format("{}: {} bytes is too short for a safetensors file", path, file.size()));
  }
  file.read(text.length_field.data(), sizeof length);
  std::memcpy(&length, text.length_field.data(), sizeof length);
  if (length > max_header_bytes || length > file.size() - sizeof length) {
    throw CheckpointError(
        fmt::format("{}: header of {} bytes in a file of {} (limit {}; cut short, damaged or not a "
                    "safetensors file)",
                    path, length, file.size(), max_header_bytes));
  }
  text.json.resize(length);
  file.read(text.json.data(), text.json.size());
  return text;
}

at::Tensor on_host(at::Tensor const& tensor) { return tensor.detach().to(at::kCPU).contiguous(); }

void check_booleans(at::Tensor const& tensor, std::string const& where) {
  auto const* bytes = static_cast<std::uint8_t const*>(tensor.const_data_ptr());
  auto const* end = bytes + tensor.numel();
  auto const* wrong = std::find_if(bytes, end, [](std::uint8_t value) { return value > 1; });
  if (wrong != end) {
    throw CheckpointError(fmt::format("{}: a BOOL is 0 or 1, element {} is {}", where, wrong - bytes, int{*wrong}));
  }
}

class Scan {
 public:
  Scan(std::string path, TensorBytes mode) : path_(std::move(path)), mode_(mode), file_(path_) {}

  SafetensorsContents run() {
    SafetensorsContents contents;
    contents.file_bytes = file_.size();
    HeaderText const text = read_header_text(file_, path_);
    file_hash_.update(text.length_field);
    file_hash_.update(text.json);
    contents.header = parse_header(text.json, file_.size(), path_);
    for (TensorEntry& entry : contents.header.entries) {
      if (mode_ == TensorBytes::keep) {
        contents.tensors.push_back(keep(entry));
      } else {
        discard(entry);
      }
    }
    contents.file_hash = file_hash_.digest();
    return contents;
  }

 private:
  at::Tensor keep(TensorEntry& entry) {
    std::string const where = fmt::format("{}: tensor \"{}\"", path_, entry.name);
    at::Tensor const tensor = at::empty(entry.shape, at::TensorOptions().dtype(dtype_of(entry.dtype, where)));
    auto* data = static_cast<char*>(tensor.mutable_data_ptr());
    Xxh3 hash;
    for (std::uint64_t done = 0; done < entry.bytes; done += chunk_bytes) {
      take(data + done, std::min<std::uint64_t>(chunk_bytes, entry.bytes - done), hash);
    }
    entry.xxh3 = hash.digest();
    if (tensor.scalar_type() == at::kBool) check_booleans(tensor, where);
    return tensor;
  }

  void discard(TensorEntry& entry) {
    Xxh3 hash;
    for (std::uint64_t left = entry.bytes; left > 0;) {
      std::size_t const part = std::min<std::uint64_t>(chunk_bytes, left);
      buffer_.resize(std::max(buffer_.size(), part));
      take(buffer_.data(), part, hash);
      left -= part;
    }
    entry.xxh3 = hash.digest();
  }

  void take(char* data, std::size_t bytes, Xxh3& tensor_hash) {
    file_.read(data, bytes);
    tensor_hash.update(data, bytes);
    file_hash_.update(data, bytes);
  }

  std::string path_;
  TensorBytes mode_;
  InputFile file_;
  Xxh3 file_hash_;
  std::vector<char> buffer_;
};

template <typename Body>
void for_each_chunk(at::Tensor const& host, Body const& body) {
  auto const* data = static_cast<char const*>(host.const_data_ptr());
  for (std::size_t done = 0, bytes = host.nbytes(); done < bytes; done += chunk_bytes) {
    body(data + done, std::min(chunk_bytes, bytes - done));
  }
}

struct Hashes {
  std::vector<std::string> tensors;
  std::string file;
};

Hashes hash_all(std::string const& header, std::vector<at::Tensor> const& hosts) {
  Hashes hashes;
  Xxh3 whole;
  whole.update(header);
  for (at::Tensor const& host : hosts) {
    Xxh3 own;
    for_each_chunk(host, [&](char const* data, std::size_t bytes) {
      own.update(data, bytes);
      whole.update(data, bytes);
    });
    hashes.tensors.push_back(own.digest());
  }
  hashes.file = whole.digest();
  return hashes;
}

}  // namespace

std::vector<TensorEntry> write_safetensors(std::string const& path, std::vector<NamedTensor> const& tensors,
                                           std::map<std::string, std::string> const& metadata, std::string* file_hash) {
  std::vector<TensorEntry> entries;
  for (NamedTensor const& named : tensors) entries.push_back(describe_tensor(named, path));
  std::string const header = format_header(entries, metadata, path);
  std::vector<at::Tensor> hosts;
  for (NamedTensor const& named : tensors) hosts.push_back(on_host(named.tensor));
  // Beside the writing: both hashes of 1 GiB take a fifth of the time that a disk takes for it.
  auto hashing = std::async(std::launch::async, [&] { return hash_all(header, hosts); });
  OutputFile file(path);
  file.write(header.data(), header.size());
  for (at::Tensor const& host : hosts) {
    for_each_chunk(host, [&](char const* data, std::size_t bytes) { file.write(data, bytes); });
  }
  file.finish();
  Hashes const hashes = hashing.get();
  for (std::size_t i = 0; i < entries.size(); ++i) entries[i].xxh3 = hashes.tensors[i];
  if (file_hash) *file_hash = hashes.file;
  return entries;
}

std::vector<NamedTensor> read_safetensors(std::string const& path, std::map<std::string, std::string>* metadata) {
  SafetensorsContents contents = scan_safetensors(path, TensorBytes::keep);
  if (metadata) *metadata = contents.header.metadata;
  std::vector<NamedTensor> tensors;
  for (std::size_t i = 0; i < contents.tensors.size(); ++i) {
    tensors.push_back({contents.header.entries[i].name, contents.tensors[i]});
  }
  return tensors;
}

std::vector<TensorEntry> read_safetensors_header(std::string const& path,
                                                 std::map<std::string, std::string>* metadata) {
  InputFile file(path);
  SafetensorsHeader const header = parse_header(read_header_text(file, path).json, file.size(), path);
  if (metadata) *metadata = header.metadata;
  return header.entries;
}

SafetensorsContents scan_safetensors(std::string const& path, TensorBytes bytes) { return Scan(path, bytes).run(); }

}  // namespace duoflow::dist
