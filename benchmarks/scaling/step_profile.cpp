// Where does the time of a joint step go on these ranks, when is each gradient bucket ready, and what would the step
// cost with its communication started otherwise?
//
//   mpirun -n 2 --oversubscribe --bind-to none build/step_profile [--steps 20] [--start filled,end,never]
//       [--statistics hidden|blocking] [--replay] CONFIG [key=value]...
//
// The trainer's own Update with one micro-step, on random batches (no data, no log). --start, one or more, taken in turns
// (--steps of each) so that a machine that slows down slows all of them: buckets leave as they fill (training does, the
// default), all after the backward, or not at all: then the ranks compute side by side and `step_ms` is what computing
// alone takes. --statistics: awaited after the renderer's backward (training does), or at once, as a blocking scalar
// all-reduce would be. Rank 0 prints one JSON object, in it one for each start, of medians: times since the step began or
// of a part of it in ms, `step_ms` of the slowest rank, `comm_cpu_ms` = CPU time of the threads beside the computing one;
// `comm_alone_ms` = all buckets reduced with nothing else going on, `comm_takes` = the share of its speed that arithmetic in
// registers, a thread a rank, loses meanwhile: processor time of sending, interrupts and TCP stacks and all. --replay, with
// never among the starts: then the same step with sleeping in place of computing, so that buckets are ready at the same
// times while the host's cores are free, as they are when a GPU computes: `replay_filled_ms`, `replay_end_ms`.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <sstream>
#include <thread>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "dist/runtime.h"
#include "launch/model_setup.h"
#include "launch/run_setup.h"
#include "launch/update.h"
#include "model/loss/cut.h"

namespace duoflow::launch {
namespace {

using Clock = std::chrono::steady_clock;

double cpu_ms(int who) {
  rusage usage = {};
  getrusage(who, &usage);
  auto const ms = [](timeval const& t) { return 1e3 * static_cast<double>(t.tv_sec) + 1e-3 * static_cast<double>(t.tv_usec); };
  return ms(usage.ru_utime) + ms(usage.ru_stime);
}

double ms_since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

double median_ms(std::function<void()> const& work) {
  std::vector<double> times;
  for (int i = 0; i < 101; ++i) {
    auto const began = Clock::now();
    work();
    times.push_back(ms_since(began));
  }
  return median(times);
}

struct Options {
  std::int64_t steps = 20;
  std::vector<std::string> starts{"filled"};
  std::string statistics = "hidden", config;
  bool replay = false;
  std::vector<std::string> overrides;
};

// Stamps the buckets' all-reduces (fp32), and holds them back or leaves them out; waits for the statistics (fp64) at once
// where they are to block.
class ProfiledTransport : public dist::Transport {
 public:
  ProfiledTransport(dist::Transport& inner, Options const& options)
      : inner_(inner), blocking_(options.statistics == "blocking") {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::string name() const override { return "profiled " + inner_.name(); }
  dist::Pending all_reduce(at::Tensor tensor, dist::ReduceOp op) override {
    if (tensor.scalar_type() == at::kDouble) return statistics(tensor, op);
    buckets.push_back({tensor.nbytes(), Clock::now()});
    if (start_ == "never") return {};
    if (start_ == "filled") return inner_.all_reduce(tensor, op);
    held_.push_back(tensor);
    return dist::Pending(std::make_shared<Held>(*this, held_.size() - 1));
  }
  dist::Pending reduce_scatter(at::Tensor output, at::Tensor input) override { return inner_.reduce_scatter(output, input); }
  dist::Pending all_gather(at::Tensor output, at::Tensor input) override { return inner_.all_gather(output, input); }
  dist::Pending all_to_all(at::Tensor output, at::Tensor input) override { return inner_.all_to_all(output, input); }
  dist::Pending broadcast(at::Tensor tensor, int root) override { return inner_.broadcast(tensor, root); }
  void barrier() override { inner_.barrier(); }

  void begin(std::string const& start) {
    start_ = start;
    buckets.clear();
    held_.clear();
    released_.clear();
  }
  struct Start {
    std::size_t bytes;
    Clock::time_point at;
  };
  std::vector<Start> buckets;
  Clock::time_point statistics_sent;
  double blocked_ms = 0;

 private:
  dist::Pending statistics(at::Tensor const& tensor, dist::ReduceOp op) {
    auto pending = inner_.all_reduce(tensor, op);
    statistics_sent = Clock::now();
    if (blocking_) pending.wait();
    blocked_ms = ms_since(statistics_sent);
    return pending;
  }
  struct Held : dist::Pending::Work {
    Held(ProfiledTransport& transport, std::size_t index) : transport_(transport), index_(index) {}
    void wait() override {
      if (transport_.released_.empty())
        for (auto const& tensor : transport_.held_)
          transport_.released_.push_back(transport_.inner_.all_reduce(tensor, dist::ReduceOp::sum));
      transport_.released_[index_].wait();
    }
    ProfiledTransport& transport_;
    std::size_t index_;
  };
  dist::Transport& inner_;
  std::string start_;
  bool blocking_;
  std::vector<at::Tensor> held_;
  std::vector<dist::Pending> released_;
};

model::JointBatch random_batch(Config const& config, std::int64_t samples) {
  auto const& m = config.model;
  auto const side = m.image_size, views = config.training.num_target_views;
  model::JointBatch batch;
  batch.x0 = at::randn({samples, m.n_latent_vectors, m.d});
  batch.x1 = at::randn({samples, m.n_latent_vectors, m.d});
  batch.t = at::rand({samples});
  batch.env = at::rand({samples, 1, 9, config.env_image_size, 2 * config.env_image_size});
  batch.target_rays = at::randn({samples, views, 6, side, side});
  batch.target_image = at::rand({samples, views, 3, side, side});
  return batch;
}

class Profile : private StepSource {
 public:
  Profile(dist::Communicator const& group, Config const& config, Options const& options)
      : group_(group),
        options_(options),
        plan_(plan_batches(config.training, config.dist, group.rank(), group.size())),
        model_(make_model(config, at::kCPU, /*resumes=*/false)),
        transport_(std::make_shared<ProfiledTransport>(*group.transport(), options)),
        update_(dist::Communicator(transport_), model_, config, plan_, at::kCPU),
        batch_(random_batch(config, plan_.micro_batch)) {
    if (plan_.micro_steps != 1) throw ConfigError("the profile is of one micro-step; raise training.batch_size_per_gpu");
    if (!update_.weighting().needs_statistics() || config.dist.zero > 0 || config.dist.reproducible)
      throw ConfigError("the profile is of weights from the step's statistics and of all-reduced buckets");
  }

  nlohmann::ordered_json run() {
    std::int64_t number = 0;
    for (std::int64_t i = -3; i < options_.steps; ++i) {
      if (i == 0) found_.clear();
      for (auto const& start : options_.starts) step(number++, start);
    }
    nlohmann::ordered_json report = {{"ranks", group_.size()}, {"samples_per_rank", plan_.micro_batch}, {"steps", options_.steps},
                                     {"statistics", options_.statistics}, {"gradient_bytes", update_.buffer().gradients().nbytes()}};
    for (auto const& start : options_.starts) report[start] = medians(found_.at(start));
    report["comm_alone_ms"] = communication_alone();
    report["comm_takes"] = share_taken();
    auto const g_v = at::randn_like(batch_.x0), g_r = at::randn_like(batch_.x0), w = at::rand({}), sums = at::zeros({3}, at::kDouble);
    report["cut_ms"] = median_ms([&] { model::combine_at_cut(g_v, w, g_r, sums); });
    report["cut_bare_ms"] = median_ms([&] { (void)(g_v * w + g_r); });
    if (options_.replay) {
      report["replay_filled_ms"] = replay(true);
      report["replay_end_ms"] = replay(false);
    }
    return report;
  }

 private:
  MicroBatch joint(std::int64_t) override { return {batch_, sample_number(0, at::kCPU)}; }
  ReconstructionMicroBatch reconstruction(std::int64_t) override {
    throw ConfigError("the profile is of objective: joint");
  }
  at::Tensor flags() override { return flag_slots({}, group_, at::kCPU); }
  void lap(Stage, double) override { laps_.push_back(ms_since(began_)); }

  struct Found {
    std::map<std::string, std::vector<double>> parts;
    std::vector<std::vector<double>> ready;  // of each bucket
  };

  nlohmann::ordered_json medians(Found const& found) const {
    nlohmann::ordered_json report;
    for (auto const& [name, values] : found.parts) report[name] = median(values);
    report["step_ms"] = slowest(median(found.parts.at("step_ms")));
    report["buckets"] = nlohmann::json::array();
    for (std::size_t i = 0; i < found.ready.size(); ++i)
      report["buckets"].push_back({{"bytes", transport_->buckets[i].bytes}, {"ready_ms", median(found.ready[i])}});
    return report;
  }

  void step(std::int64_t number, std::string const& start) {
    Found& found = found_[start];
    auto const note = [&found](char const* name, double value) { found.parts[name].push_back(value); };
    laps_.clear();
    transport_->begin(start);
    dist::barrier(group_);
    double const other_cpu = cpu_ms(RUSAGE_SELF) - cpu_ms(RUSAGE_THREAD);
    began_ = Clock::now();
    update_.run(number, *this);
    // The laps of Update with one micro-step: data, parameters, forward, down to the cut, statistics, backward, buckets,
    // optimizer.
    if (laps_.size() != 8) throw std::logic_error("the laps of an update are others than this program knows");
    double const sent = ms(transport_->statistics_sent);
    note("forward_ms", laps_[2]);
    note("send_ms", sent - laps_[2]);
    note("to_cut_ms", laps_[3]);
    note("await_ms", transport_->blocked_ms + laps_[4] - laps_[3]);
    note("backward_end_ms", laps_[5]);
    note("exposed_ms", laps_[6] - laps_[5]);
    note("optimizer_ms", laps_[7] - laps_[6]);
    note("step_ms", laps_[7]);
    note("comm_cpu_ms", cpu_ms(RUSAGE_SELF) - cpu_ms(RUSAGE_THREAD) - other_cpu);
    found.ready.resize(transport_->buckets.size());
    for (std::size_t i = 0; i < found.ready.size(); ++i) found.ready[i].push_back(ms(transport_->buckets[i].at));
  }
  double ms(Clock::time_point at) const { return std::chrono::duration<double, std::milli>(at - began_).count(); }

  double slowest(double mine) const {
    double most = 0;
    for (auto const& text : dist::all_gather_strings(group_, fmt::format("{}", mine))) most = std::max(most, std::stod(text));
    return most;
  }

  double communicate() {  // ms of every bucket's all-reduce, one after another, with nothing else going on
    dist::barrier(group_);
    auto const began = Clock::now();
    std::vector<dist::Pending> pending;
    for (auto const& bucket : update_.buffer().buckets())
      pending.push_back(dist::all_reduce(group_, update_.buffer().gradients().narrow(0, bucket.begin, bucket.end - bucket.begin)));
    for (auto& one : pending) one.wait();
    return ms_since(began);
  }

  double communication_alone() {
    std::vector<double> times;
    for (int i = 0; i < 7; ++i) times.push_back(communicate());
    return slowest(median(times));  // a root may leave as soon as the kernel has its bytes
  }

  double share_taken() {
    std::vector<double> shares;
    for (int i = 0; i < 9; ++i) {
      double const alone = arithmetic_per_ms([] { std::this_thread::sleep_for(std::chrono::milliseconds(200)); });
      double const beside = arithmetic_per_ms([this] { communicate(); });
      shares.push_back(1 - beside / alone);
    }
    return slowest(median(shares));
  }

  double arithmetic_per_ms(std::function<void()> const& work) {
    dist::barrier(group_);
    std::atomic<bool> stop = false;
    std::atomic<std::int64_t> rounds = 0;
    std::thread arithmetic([&] {
      for (volatile std::uint64_t state = 1; !stop; ++rounds) {
        std::uint64_t x = state;
        for (int i = 0; i < 1000; ++i) x = x * 6364136223846793005 + 1442695040888963407;
        state = x;  // so that it is computed
      }
    });
    auto const began = Clock::now();
    work();
    double const per_ms = static_cast<double>(rounds) / ms_since(began);
    stop = true;
    arithmetic.join();
    return per_ms;
  }

  // The first rank's times for all: what one rank waits for is ready on the others.
  double replay(bool as_filled) {
    Found const& computing = found_.at("never");
    std::string mine = fmt::format("{} {}", median(computing.parts.at("backward_end_ms")), median(computing.parts.at("optimizer_ms")));
    for (auto const& times : computing.ready) mine += fmt::format(" {}", median(times));
    std::istringstream text(dist::all_gather_strings(group_, mine).front());
    double backward_end = 0, optimizer = 0;
    text >> backward_end >> optimizer;
    std::vector<double> ready(computing.ready.size());
    for (double& time : ready) text >> time;
    auto const after = [](Clock::time_point start, double ms) {
      std::this_thread::sleep_until(start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(ms)));
    };
    std::vector<double> times;
    for (std::int64_t i = 0; i < options_.steps; ++i) {
      dist::barrier(group_);
      auto const began = Clock::now();
      std::vector<dist::Pending> pending;
      auto const gradients = update_.buffer().gradients();
      auto const& buckets = update_.buffer().buckets();
      if (!as_filled) after(began, backward_end);
      for (std::size_t b = 0; b < buckets.size(); ++b) {
        if (as_filled) after(began, ready[b]);
        pending.push_back(dist::all_reduce(group_, gradients.narrow(0, buckets[b].begin, buckets[b].end - buckets[b].begin)));
      }
      after(began, backward_end);
      for (auto& one : pending) one.wait();
      times.push_back(ms_since(began) + optimizer);
    }
    return slowest(median(times));
  }

  dist::Communicator group_;
  Options options_;
  BatchPlan plan_;
  model::SceneModel model_;
  std::shared_ptr<ProfiledTransport> transport_;
  Update update_;
  model::JointBatch batch_;
  Clock::time_point began_;
  std::vector<double> laps_;  // of the present step
  std::map<std::string, Found> found_;  // by start
};

std::vector<std::string> split(std::string const& words) {
  std::vector<std::string> found;
  std::istringstream text(words);
  for (std::string word; std::getline(text, word, ',');) found.push_back(word);
  return found;
}

Options parse(int count, char** words) {
  Options options;
  for (int i = 1; i < count; ++i) {
    std::string const word = words[i];
    bool const has_value = i + 1 < count;
    if (word == "--replay") options.replay = true;
    else if (word == "--steps" && has_value) options.steps = std::stoll(words[++i]);
    else if (word == "--start" && has_value) options.starts = split(words[++i]);
    else if (word == "--statistics" && has_value) options.statistics = words[++i];
    else if (options.config.empty()) options.config = word;
    else options.overrides.push_back(word);
  }
  auto const& starts = options.starts;
  bool const known = std::all_of(starts.begin(), starts.end(), [](auto const& s) { return s == "filled" || s == "end" || s == "never"; }) &&
                     !starts.empty() && (options.statistics == "hidden" || options.statistics == "blocking");
  bool const can_replay = !options.replay || std::count(starts.begin(), starts.end(), "never") > 0;
  if (!known || !can_replay || options.config.empty()) throw ConfigError("usage: see the head of benchmarks/scaling/step_profile.cpp");
  return options;
}

int measure(dist::Runtime& runtime, Options const& options) {
  auto config = load_config(options.config, options.overrides);
  config.training.lr = 0;  // with `never` the replicas would drift apart
  configure(runtime, config);
  auto const group = runtime.communicator(dist::Device::cpu);
  if (group.size() < 2) throw ConfigError("one rank sends nothing, start it with mpirun -n 2");
  auto const report = Profile(group, config, options).run();
  if (group.rank() == 0) std::printf("%s\n", report.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace duoflow::launch

int main(int count, char** words) {
  using namespace duoflow;
  dist::Runtime runtime({1, 60});
  return dist::run_guarded(runtime, [&] { return launch::measure(runtime, launch::parse(count, words)); },
                           [](std::exception const&) { return 2; });
}
