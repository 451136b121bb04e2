#include "data/loading/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <utility>

#include "data/error.h"

namespace duoflow::data {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kFieldAlignment = 64;  // a cache line, and what vector loads like

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

std::shared_ptr<std::byte> allocate_host(std::size_t bytes) {
  auto* const memory = static_cast<std::byte*>(std::aligned_alloc(kPage, round_up(bytes, kPage)));
  if (memory == nullptr) throw std::bad_alloc();
  return {memory, [](std::byte* p) { std::free(p); }};
}

struct Slot {
  std::shared_ptr<std::byte> memory;
  std::vector<std::byte*> starts;  // per field
  Batch batch;
  std::int64_t claimed = 0, finished = 0;  // samples
  std::exception_ptr error;                // of the lowest sample that failed, so that threads do not change the message
  std::int64_t error_sample = -1;
  bool delivered = false;
};

}  // namespace

std::size_t Field::bytes_per_sample() const {
  std::size_t bytes = byte_size(dtype);
  for (auto const size : sample_shape) bytes *= static_cast<std::size_t>(size);
  return bytes;
}

// All members below the options are guarded by `mutex`; the bytes of a slot belong to whoever claimed the sample.
struct Loader::State {
  std::shared_ptr<BatchSource const> source;
  Schedule schedule;
  std::int64_t max_samples;
  std::vector<std::size_t> sample_bytes;

  std::mutex mutex;
  std::condition_variable slot_freed, batch_ready;
  std::vector<Slot> slots;
  std::vector<Slot*> free, in_order;  // in_order: opened and not yet delivered, by batch number
  Slot* filling = nullptr;            // the newest of in_order
  std::uint64_t next_number = 0;      // of the batch to open
  bool stopping = false;
  double waited_ms = 0;
  std::vector<std::thread> threads;

  void make_slots(LoaderOptions const& options) {
    std::vector<std::size_t> offsets;
    std::size_t bytes = 0;
    for (auto const& field : source->fields()) {
      sample_bytes.push_back(field.bytes_per_sample());
      offsets.push_back(bytes);
      bytes += round_up(sample_bytes.back() * static_cast<std::size_t>(max_samples), kFieldAlignment);
    }
    slots.resize(static_cast<std::size_t>(options.slots));
    for (std::size_t i = 0; i < slots.size(); ++i) {
      auto& slot = slots[i];
      slot.memory = options.allocate ? options.allocate(std::max<std::size_t>(bytes, 1)) : allocate_host(std::max<std::size_t>(bytes, 1));
      slot.batch.slot = static_cast<std::int64_t>(i);
      for (std::size_t f = 0; f < offsets.size(); ++f) {
        slot.starts.push_back(slot.memory.get() + offsets[f]);
        slot.batch.fields[source->fields()[f].name] = slot.starts.back();
      }
      free.push_back(&slot);
    }
    in_order.reserve(slots.size());
  }

  void open_batch() {
    auto& slot = *free.back();
    free.pop_back();
    in_order.push_back(&slot);
    filling = &slot;
    slot.claimed = slot.finished = 0;
    slot.error = nullptr;
    slot.error_sample = -1;
    slot.delivered = false;
    try {
      std::tie(slot.batch.first_position, slot.batch.samples) = schedule(next_number);
      if (slot.batch.samples < 0 || slot.batch.samples > max_samples)
        throw DataError(fmt::format("batch {} has {} samples (slots hold {}), correct the schedule", next_number, slot.batch.samples,
                                    max_samples));
    } catch (...) {
      slot.batch.samples = 0;
      slot.error = std::current_exception();
    }
    ++next_number;
    if (slot.batch.samples == 0) batch_ready.notify_all();
  }

  // The next sample to fill, batches in order; nothing when the loader stops.
  std::optional<std::pair<Slot*, std::int64_t>> claim() {
    std::unique_lock held(mutex);
    for (;;) {
      if (stopping) return std::nullopt;
      if (filling != nullptr && filling->claimed < filling->batch.samples) return std::pair(filling, filling->claimed++);
      if (free.empty())
        slot_freed.wait(held);
      else
        open_batch();
    }
  }

  void finish(Slot& slot, std::int64_t sample, std::exception_ptr const& error) {
    std::lock_guard const held(mutex);
    if (error && (slot.error_sample < 0 || sample < slot.error_sample)) {
      slot.error = error;
      slot.error_sample = sample;
    }
    if (++slot.finished == slot.batch.samples) batch_ready.notify_all();
  }

  void read_ahead() {
    std::vector<std::byte*> destinations(sample_bytes.size());
    while (auto const claimed = claim()) {
      auto& [slot, sample] = *claimed;
      for (std::size_t f = 0; f < destinations.size(); ++f)
        destinations[f] = slot->starts[f] + static_cast<std::size_t>(sample) * sample_bytes[f];
      std::exception_ptr error;
      try {
        source->fill(slot->batch.first_position + static_cast<std::uint64_t>(sample), destinations);
      } catch (...) {
        error = std::current_exception();
      }
      finish(*slot, sample, error);
    }
  }

  bool front_ready() const { return !in_order.empty() && in_order.front()->finished == in_order.front()->batch.samples; }

  void give_back(Slot& slot) {
    slot.delivered = false;
    free.push_back(&slot);
    slot_freed.notify_all();
  }

  void stop() {
    {
      std::lock_guard const held(mutex);
      stopping = true;
    }
    slot_freed.notify_all();
    for (auto& thread : threads) thread.join();
    threads.clear();
  }
  ~State() { stop(); }
};

Loader::Loader(std::shared_ptr<BatchSource const> source, Schedule schedule, std::int64_t max_samples, LoaderOptions const& options)
    : state_(std::make_unique<State>()) {
  if (options.threads < 1 || options.slots < 1 || max_samples < 1)
    throw DataError(fmt::format("a loader of {} threads, {} slots and {} samples a slot cannot work (at least one of each), raise them",
                                options.threads, options.slots, max_samples));
  state_->source = std::move(source);
  state_->schedule = std::move(schedule);
  state_->max_samples = max_samples;
  state_->make_slots(options);
  for (int i = 0; i < options.threads; ++i) state_->threads.emplace_back([state = state_.get()] { state->read_ahead(); });
}

Loader::~Loader() = default;

Batch Loader::next() {
  auto& state = *state_;
  auto const start = std::chrono::steady_clock::now();
  std::unique_lock held(state.mutex);
  if (state.in_order.empty() && state.free.empty())
    throw std::logic_error("every slot of the loader is held by the caller (none released), release a batch before asking for the next");
  state.batch_ready.wait(held, [&] { return state.front_ready(); });
  state.waited_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  auto& slot = *state.in_order.front();
  state.in_order.erase(state.in_order.begin());
  if (state.filling == &slot) state.filling = nullptr;
  if (slot.error) {
    auto const error = std::exchange(slot.error, nullptr);
    state.give_back(slot);
    std::rethrow_exception(error);
  }
  slot.delivered = true;
  return slot.batch;
}

void Loader::release(Batch const& batch) {
  std::lock_guard const held(state_->mutex);
  auto const known = batch.slot >= 0 && batch.slot < static_cast<std::int64_t>(state_->slots.size());
  if (!known || !state_->slots[static_cast<std::size_t>(batch.slot)].delivered)
    throw std::logic_error(fmt::format("batch in slot {} released twice or never delivered, release each batch once", batch.slot));
  state_->give_back(state_->slots[static_cast<std::size_t>(batch.slot)]);
}

double Loader::waited_ms() const {
  std::lock_guard const held(state_->mutex);
  return state_->waited_ms;
}

}  // namespace duoflow::data
