#include "dist/checkpoint/background_writer.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "dist/checkpoint/file_io.h"
#include "dist/checkpoint/folders.h"
#include "dist/checkpoint/publication.h"
#include "dist/checkpoint/share.h"
#include "dist/error.h"

namespace duoflow::dist {
namespace {

using Clock = std::chrono::steady_clock;
using Text = nlohmann::ordered_json;

double ms_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

std::string host_name() {
  char buffer[256] = "";
  return ::gethostname(buffer, sizeof buffer - 1) == 0 ? buffer : "unknown host";
}

std::string new_id() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}", random(), random());
}

// A system's message or a path need not be UTF-8.
std::string dumped(Text const& text) { return text.dump(-1, ' ', false, Text::error_handler_t::replace); }

// One job at a time on a thread of its own. What a job throws is its error.
class Worker {
 public:
  Worker() : thread_([this] { work(); }) {}
  ~Worker() {
    {
      std::lock_guard const held(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void start(std::function<void()> job) {
    std::lock_guard const held(mutex_);
    job_ = std::move(job);
    done_ = false;
    error_.clear();
    changed_.notify_all();
  }
  bool done() const {
    std::lock_guard const held(mutex_);
    return done_;
  }
  void wait() const {
    std::unique_lock held(mutex_);
    changed_.wait(held, [this] { return done_; });
  }
  std::string error() const {  // of the last job; once it is done
    std::lock_guard const held(mutex_);
    return error_;
  }
  bool ending() const { return ending_; }

 private:
  void work() {
    std::unique_lock held(mutex_);
    for (;;) {
      changed_.wait(held, [this] { return ending_ || job_; });
      if (!job_) return;
      auto const job = std::exchange(job_, nullptr);
      held.unlock();
      std::string error;
      try {
        job();
      } catch (std::exception const& failure) {
        error = failure.what();
      }
      held.lock();
      error_ = error;
      done_ = true;
      changed_.notify_all();
    }
  }

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::function<void()> job_;
  std::string error_;
  std::atomic<bool> ending_{false};
  bool done_ = true;
  std::thread thread_;  // last: it uses the others
};

}  // namespace

struct BackgroundWriter::State {
  enum class Stage { idle, writing, publishing };

  Communicator communicator;
  CheckpointWriterOptions options;
  HostCopy memory;
  std::string id;
  Stage stage = Stage::idle;
  std::int64_t number = 0;
  // Of the checkpoint under way. The worker reads them, and writes the last four, while its job runs.
  CheckpointState checkpoint;
  Share share;
  std::string temporary;
  SaveOutcome outcome;
  std::string begin_error, record;
  bool committed = false;
  Clock::time_point begun, durable;
  Worker worker;  // last: it ends before what it uses

  State(Communicator const& group, CheckpointWriterOptions checkpoint_options, bool pinned)
      : communicator(group), options(std::move(checkpoint_options)), memory(pinned) {
    id = all_gather_strings(communicator, rank() == 0 ? new_id() : "").front();
  }

  int rank() const { return communicator.rank(); }

  void begin(CheckpointState const& state, SaveMemory how) {
    if (stage != Stage::idle) throw std::logic_error("a checkpoint is begun while another is under way, end that first");
    begun = Clock::now();
    ++number;
    stage = Stage::writing;
    committed = false;
    outcome = {};
    outcome.step = state.step;
    begin_error.clear();
    temporary.clear();
    try {
      share = plan_share(state, options, rank(), communicator.size());
      outcome.bytes = share.bytes;
      outcome.folder = options.directory + "/" + step_folder_name(state.step);
      temporary = temporary_name(outcome.folder, id);
      checkpoint = how == SaveMemory::copied ? memory.copy(state, share) : state;
      worker.start([this] { write(); });
    } catch (std::exception const& error) {
      begin_error = error.what();
    }
    outcome.held_ms = ms_between(begun, Clock::now());
  }

  // On the worker's thread, every rank.
  void write() {
    make_folders(options.directory);
    if (rank() == 0) remove_leftovers(options.directory, temporary);
    make_folders(temporary);
    record = write_share(share, checkpoint, temporary, [this] { return worker.ending(); });
  }

  // On the worker's thread, rank 0.
  void publish(std::vector<std::string> const& records) {
    Publication publication(options, checkpoint.step, temporary, id);
    publication.commit(checkpoint, communicator.size(), records);
    committed = true;
    publication.finish();
    durable = Clock::now();
  }

  // ---- on the caller's thread

  SaveReport report() const {
    SaveReport mine;
    if (stage == Stage::idle) return mine;
    if (rank() == 0) mine.number = static_cast<double>(number);
    bool const busy = begin_error.empty() && !worker.done();
    if (busy) return mine;
    bool const failed = !begin_error.empty() || !worker.error().empty();
    if (failed)
      mine.failed = 1;
    else if (stage == Stage::writing)
      mine.written = 1;
    else if (rank() == 0)
      mine.published = 1;
    return mine;
  }

  std::optional<SaveOutcome> take(SaveReport const& sums) {
    if (stage == Stage::idle || sums.number != static_cast<double>(number)) return std::nullopt;
    if (sums.failed > 0) return end();
    if (stage == Stage::writing && sums.written == communicator.size()) return start_publishing();
    if (stage == Stage::publishing && sums.published > 0) return end();
    return std::nullopt;
  }

  SaveOutcome finish() {
    if (stage == Stage::idle) throw std::logic_error("no checkpoint is under way that could be finished");
    if (stage == Stage::writing) {
      wait();
      if (auto const failed = first_failure(own_failure()); !failed.empty()) return close(failed);
      if (auto const early = start_publishing()) return *early;
    }
    return end();
  }

  void wait() const {
    if (begin_error.empty()) worker.wait();
  }
  // Of what this rank was last asked to do.
  std::string own_failure() const {
    auto const error = begin_error.empty() ? worker.error() : begin_error;
    return error.empty() ? error : fmt::format("rank {} on {}: {}", rank(), host_name(), error);
  }

  // Collective: the lowest rank's, with the number of the others; "" when none has failed.
  std::string first_failure(std::string const& mine) const {
    std::string first;
    int others = -1;
    for (auto const& text : all_gather_strings(communicator, dumped(mine))) {
      auto const failure = Text::parse(text).get<std::string>();
      if (failure.empty()) continue;
      if (first.empty()) first = failure;
      ++others;
    }
    return others > 0 ? fmt::format("{} (and {} more ranks failed)", first, others) : first;
  }

  // Collective: every rank's files are on disk. An outcome when the ranks do not fit together.
  std::optional<SaveOutcome> start_publishing() {
    Text const mine = {{"description", Text::parse(share.description)}, {"record", record}};
    std::vector<std::string> records;
    auto const texts = all_gather_strings(communicator, dumped(mine));
    auto const first = Text::parse(texts.front())["description"];
    for (std::size_t r = 0; r < texts.size(); ++r) {
      auto const theirs = Text::parse(texts[r]);
      if (theirs["description"] != first)
        return close(fmt::format("rank {} brings other tensors or another step than rank 0 ({} against {})", r,
                                 theirs["description"].dump(), first.dump()));
      records.push_back(theirs["record"].get<std::string>());
    }
    stage = Stage::publishing;
    if (rank() == 0) worker.start([this, records = std::move(records)] { publish(records); });
    return std::nullopt;
  }

  // Collective: a job of some rank may have failed.
  SaveOutcome end() {
    wait();
    return close(first_failure(own_failure()));
  }

  // Collective.
  SaveOutcome close(std::string const& failure) {
    Text said = "";
    if (rank() == 0 && !failure.empty())
      said = committed ? fmt::format("{}: complete on disk, but `latest` or older checkpoints could not be updated: {}",
                                     outcome.folder, failure)
                       : removed(fmt::format("{}: checkpoint not written, {}", options.directory, failure));
    outcome.failure = Text::parse(all_gather_strings(communicator, dumped(said)).front()).get<std::string>();
    if (failure.empty()) outcome.durable_ms = ms_between(begun, durable);
    stage = Stage::idle;
    checkpoint = {};
    return outcome;
  }

  std::string removed(std::string const& text) const {
    try {
      if (!temporary.empty()) remove_tree(temporary);
    } catch (CheckpointError const& error) {
      return fmt::format("{}; the remains could not be removed: {}", text, error.what());
    }
    return text;
  }
};

BackgroundWriter::BackgroundWriter(Communicator const& communicator, CheckpointWriterOptions options, bool pinned)
    : state_(std::make_unique<State>(communicator, std::move(options), pinned)) {}

BackgroundWriter::~BackgroundWriter() = default;

void BackgroundWriter::begin(CheckpointState const& state, SaveMemory memory) { state_->begin(state, memory); }
bool BackgroundWriter::under_way() const { return state_->stage != State::Stage::idle; }
SaveReport BackgroundWriter::report() const { return state_->report(); }
std::optional<SaveOutcome> BackgroundWriter::take(SaveReport const& sums) { return state_->take(sums); }
SaveOutcome BackgroundWriter::finish() { return state_->finish(); }

std::string write_checkpoint(Communicator const& communicator, CheckpointWriterOptions const& options,
                             CheckpointState const& state) {
  BackgroundWriter writer(communicator, options);
  writer.begin(state, SaveMemory::lent);
  auto const outcome = writer.finish();
  if (!outcome.failure.empty()) throw CheckpointError(outcome.failure);
  return outcome.folder;
}

}  // namespace duoflow::dist
