#include "dist/peer_record.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include <fmt/format.h>

namespace duoflow::dist {
namespace {

static_assert(std::is_trivially_copyable_v<PeerRecord>);

template <std::size_t size>
void put(char (&field)[size], std::string_view text) {
  std::size_t const length = std::min(text.size(), size - 1);
  std::memcpy(field, text.data(), length);
  field[length] = '\0';
}

}  // namespace

CollectiveNote make_note(std::string_view what, std::string_view label, std::string_view type, std::int64_t sequence,
                         std::int64_t numel) {
  CollectiveNote note;
  put(note.what, what);
  put(note.label, label);
  put(note.type, type);
  note.sequence = sequence;
  note.numel = numel;
  note.issued_ns = now_ns();
  return note;
}

std::string CollectiveNote::name() const {
  return label[0] == '\0' ? fmt::format("{} #{}", what, sequence) : fmt::format("{} #{} ({})", what, sequence, label);
}

std::string CollectiveNote::describe() const {
  return type[0] == '\0' ? name() : fmt::format("{} of {} {}", name(), numel, type);
}

// The words are stored with release and loaded with acquire: a reader that sees a word of a later write also sees that
// the version has moved on since it began, and begins again.
void RecordSlot::write(PeerRecord const& record) {
  std::uint64_t plain[words];
  std::memcpy(plain, &record, sizeof(record));
  std::uint64_t const next = version_.load(std::memory_order_relaxed) + 1;
  Copy& copy = copies_[next % 2];
  for (std::size_t i = 0; i < words; ++i) copy[i].store(plain[i], std::memory_order_release);
  version_.store(next, std::memory_order_release);
}

PeerRecord RecordSlot::read() const {
  std::uint64_t plain[words];
  std::uint64_t version = 0;
  do {
    version = version_.load(std::memory_order_acquire);
    Copy const& copy = copies_[version % 2];
    for (std::size_t i = 0; i < words; ++i) plain[i] = copy[i].load(std::memory_order_acquire);
  } while (version_.load(std::memory_order_acquire) != version);
  PeerRecord record;
  if (version > 0) std::memcpy(&record, plain, sizeof(record));
  return record;
}

}  // namespace duoflow::dist
