#include "launch/evaluator.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "launch/batches.h"
#include "launch/logging.h"
#include "launch/loss_weights.h"
#include "launch/pair_reader.h"
#include "launch/pictures.h"
#include "model/metrics.h"

namespace duoflow::launch {
namespace {

using Row = std::vector<double>;  // one number per column of kColumns
std::vector<std::string> const kAnswers = {"", "no_edit_", "oracle_", "shuffled_light_", "mean_light_"};
std::vector<std::string> const kMetrics = {"psnr", "psnr_masked", "ssim", "ssim_masked", "lpips", "lpips_masked"};

std::vector<std::string> columns() {
  std::vector<std::string> names;
  for (auto const& answer : kAnswers)
    for (auto const& metric : kMetrics) names.push_back(answer + metric);
  return names;
}

// NaN: an answer that does not exist (undefined picture), a mask that the data do not have, pictures smaller than
// SSIM's window or LPIPS's network, weights of LPIPS that are not there (null).
void append_metrics(Row& row, at::Tensor const& image_T3HW, at::Tensor const& target_T3HW, at::Tensor const& mask,
                    model::Lpips const* lpips) {
  if (!image_T3HW.defined()) {
    row.insert(row.end(), kMetrics.size(), std::nan(""));
    return;
  }
  auto const side = std::min(image_T3HW.size(2), image_T3HW.size(3));
  bool const has_windows = side >= model::kSsimWindow, has_lpips = lpips && side >= lpips->smallest_side();
  // A view without foreground has no masked metric; any other number that is none shows in the mean.
  auto const views = mask.defined() ? mask.flatten(1).any(1) : at::Tensor();
  bool const has_mask = mask.defined() && views.any().item<bool>();
  auto const add = [&](at::Tensor const& per_view) {
    row.push_back(per_view.defined() && per_view.numel() > 0 ? per_view.mean().item<double>() : std::nan(""));
  };
  auto const distance = has_lpips ? lpips->distances(image_T3HW, target_T3HW, mask) : model::Lpips::Means{};
  add(model::psnr_per_image(image_T3HW, target_T3HW));
  add(has_mask ? model::psnr_per_image_masked(image_T3HW, target_T3HW, mask).index({views}) : at::Tensor());
  add(has_windows ? model::ssim_per_image(image_T3HW, target_T3HW) : at::Tensor());
  at::Tensor ssim;
  if (has_windows && has_mask)  // a foreground in the border alone is in no window's centre
    ssim = model::ssim_per_image_masked(image_T3HW, target_T3HW, mask)
               .index({model::window_centres(mask).flatten(1).any(1)});
  add(ssim);
  add(distance.full);
  add(has_lpips && has_mask ? distance.masked.index({views}) : at::Tensor());
}

class Evaluation {
 public:
  Evaluation(LoadedModel const& loaded, EvaluateOptions const& options)
      : loaded_(loaded),
        options_(options),
        device_(loaded.model.parameters().front().tensor.device()),
        test_(options.data, device_),
        encoding_(model::light_encoding_from_string(loaded.config.data.light_encoding)),
        editing_(edit_options(loaded.config, options.edit)) {
    static_cast<void>(sweep());  // what cannot be asked for is said before the work
    if (!options.train_data.empty()) train_ = std::make_unique<PairReader>(options.train_data, device_);
    auto const& model = loaded.config.model;
    auto const& set = test_.set();
    if (set.tokens != model.n_latent_vectors || set.dim != model.d)
      throw data::DataError(fmt::format("{}: latents are {} x {}, the model's are {} x {}; encode with this model",
                                        options.data, set.tokens, set.dim, model.n_latent_vectors, model.d));
    if (set.producer != producer_of(loaded.model) && !loaded.config.data.allow_other_producer)
      throw data::DataError(
          fmt::format("{}: encoded by another reconstructor (producer {}, this checkpoint's is {}); encode again with "
                      "this checkpoint, or data.allow_other_producer=true",
                      options.data, set.producer, producer_of(loaded.model)));
    auto const& training = loaded.config.training;  // its file may be gone: another machine's
    bool const named = training.lpips_network == "vgg" && std::filesystem::is_regular_file(training.lpips_weights);
    lpips_ = find_lpips(model::LpipsNetwork::vgg, named ? training.lpips_weights : "", device_, &lpips_absent_);
  }

  std::int64_t pairs() const { return std::ssize(test_.set().pairs); }
  PairReader const& test() const { return test_; }
  // With what the numbers were made.
  nlohmann::ordered_json settings() const {
    return {{"step", loaded_.step},
            {"weights", loaded_.averaged ? "ema" : "trained"},
            {"solver", solver_label(editing_)},
            {"steps", editing_.solver.steps},
            {"guidance", editing_.guidance},
            {"stochastic", editing_.stochastic},
            {"noise_seed", editing_.seed}};
  }
  std::string const& lpips_absent() const { return lpips_absent_; }  // why there is no LPIPS; "": there is

  // Metrics of the given pairs; edited pictures [T,3,H,W] of each go to *edited when given.
  std::vector<Row> run(std::vector<std::int64_t> const& pairs, std::vector<at::Tensor>* edited) {
    at::NoGradGuard const no_grad;
    auto const own = edit(pairs, pairs);
    std::vector<std::int64_t> others;
    for (auto const pair : pairs) others.push_back(other_light(pair));
    auto const shuffled = edit(pairs, others);
    std::vector<Row> rows;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      auto const& pair = test_.set().pairs[static_cast<std::size_t>(pairs[i])];
      auto const target = test_.images(pair.x1), mask = test_.mask(pair.x1);
      Row row;
      auto const append = [&](at::Tensor const& image) { append_metrics(row, image, target, mask, lpips_.get()); };
      append(own[i]);
      append(rendered(pair.x0));
      append(rendered(pair.x1));
      append(others[i] == pairs[i] ? at::Tensor() : shuffled[i]);
      append(mean_light(pair.x1));
      rows.push_back(std::move(row));
      if (edited) edited->push_back(own[i]);
    }
    return rows;
  }

  // The edit's metrics alone, with another solver.
  std::vector<Row> run_edit(std::vector<std::int64_t> const& pairs, EditOptions const& editing) {
    at::NoGradGuard const no_grad;
    auto const edited = edit(pairs, pairs, editing);
    std::vector<Row> rows(pairs.size());
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      auto const x1 = test_.set().pairs[static_cast<std::size_t>(pairs[i])].x1;
      append_metrics(rows[i], edited[i], test_.images(x1), test_.mask(x1), lpips_.get());
    }
    return rows;
  }

  // The solvers of a sweep; dopri5, which chooses its steps itself, once.
  std::vector<EditOptions> sweep() const {
    std::vector<EditOptions> all;
    if (options_.sweep_steps.empty()) return all;
    if (editing_.stochastic > 0 && !options_.sweep_solvers.empty())
      throw ConfigError("--sweep-solvers beside --stochastic, which is a solver itself; leave one out");
    auto const names =
        options_.sweep_solvers.empty() ? std::vector<std::string>{editing_.solver.name} : options_.sweep_solvers;
    for (auto const& name : names) {
      auto one = editing_;
      one.solver.name = name;
      for (auto const steps : options_.sweep_steps) {
        one.solver.steps = static_cast<int>(steps);
        require_one_step(loaded_.config, one.solver);
        all.push_back(one);
        if (name == "dopri5") break;
      }
    }
    return all;
  }

 private:
  at::Tensor render(at::Tensor const& latents_Bnd, at::Tensor const& rays) const {
    return loaded_.model.render(latents_Bnd, rays);
  }

  // Pictures of each pair's x0 under the light of the x1 of `lights`.
  std::vector<at::Tensor> edit(std::vector<std::int64_t> const& pairs, std::vector<std::int64_t> const& lights) const {
    return edit(pairs, lights, editing_);
  }
  std::vector<at::Tensor> edit(std::vector<std::int64_t> const& pairs, std::vector<std::int64_t> const& lights,
                               EditOptions const& editing) const {
    std::vector<at::Tensor> x0, env, to_norm, rays;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      auto const& pair = test_.set().pairs[static_cast<std::size_t>(pairs[i])];
      x0.push_back(test_.latents(pair.x0));
      env.push_back(test_.env(test_.set().pairs[static_cast<std::size_t>(lights[i])].x1));
      to_norm.push_back(test_.world_to_norm(pair.x0));
      rays.push_back(test_.rays(pair.x1));
    }
    auto const light =
        light_tensor(at::stack(env), at::stack(to_norm), loaded_.config.env_image_size, encoding_, device_);
    auto const moved = edit_latents(loaded_.model, at::stack(x0), light, pairs, editing);
    return render(moved, at::stack(rays)).unbind(0);
  }

  at::Tensor rendered(std::int64_t row) {
    auto& picture = rendered_[row];
    if (!picture.defined()) picture = render(test_.latents(row).unsqueeze(0), test_.rays(row).unsqueeze(0))[0];
    return picture;
  }

  // The next pair (cyclic) whose target light is another one; `pair` itself when there is none.
  std::int64_t other_light(std::int64_t pair) const {
    auto const& set = test_.set();
    auto light = [&](std::int64_t p) {
      return set.rows[static_cast<std::size_t>(set.pairs[static_cast<std::size_t>(p)].x1)].light;
    };
    auto start_light = [&](std::int64_t p) {
      return set.rows[static_cast<std::size_t>(set.pairs[static_cast<std::size_t>(p)].x0)].light;
    };
    for (std::int64_t k = 1; k < pairs(); ++k) {
      auto const other = (pair + k * 7) % pairs();  // a stride, so that neighbours do not share their other light
      if (light(other) != light(pair) && light(other) != start_light(pair)) return other;
    }
    return pair;
  }

  at::Tensor mean_light(std::int64_t row) {
    if (!train_) return {};
    auto const& entry = test_.set().rows[static_cast<std::size_t>(row)];
    auto const key = std::pair(entry.object, entry.view_set);
    if (auto const found = means_.find(key); found != means_.end()) return found->second;
    at::Tensor sum;
    std::int64_t lights = 0;
    auto const rays = test_.rays(row).unsqueeze(0);
    for (std::int64_t r = 0; r < std::ssize(train_->set().rows); ++r) {
      auto const& candidate = train_->set().rows[static_cast<std::size_t>(r)];
      if (candidate.object != entry.object || candidate.view_set != entry.view_set) continue;
      auto const picture = render(train_->latents(r).unsqueeze(0), rays)[0];
      sum = sum.defined() ? sum + picture : picture;
      ++lights;
    }
    return means_[key] = lights > 0 ? sum / static_cast<double>(lights) : at::Tensor();
  }

  LoadedModel const& loaded_;
  EvaluateOptions const& options_;
  at::Device device_;
  PairReader test_;
  std::unique_ptr<PairReader> train_;
  model::LightEncoding encoding_;
  EditOptions editing_;
  std::shared_ptr<model::Lpips const> lpips_;
  std::string lpips_absent_;
  std::map<std::int64_t, at::Tensor> rendered_;
  std::map<std::pair<std::string, std::int64_t>, at::Tensor> means_;
};

std::vector<Row> gather(dist::Communicator const& communicator, std::map<std::int64_t, Row> const& mine,
                        std::int64_t pairs) {
  nlohmann::json json = nlohmann::json::array();
  for (auto const& [pair, row] : mine) json.push_back({pair, row});
  std::vector<Row> rows(static_cast<std::size_t>(pairs));
  for (auto const& text : dist::all_gather_strings(communicator, json.dump()))
    for (auto const& item : nlohmann::json::parse(text)) {
      auto& row = rows[item[0].get<std::size_t>()];
      for (auto const& value : item[1]) row.push_back(value.is_null() ? std::nan("") : value.get<double>());
    }
  return rows;
}

void write_csv(std::string const& path, Evaluation const& evaluation, std::vector<Row> const& rows) {
  std::ofstream file(path);
  file << "pair,object,light_x0,light_x1," << fmt::format("{}", fmt::join(columns(), ",")) << "\n";
  auto const& set = evaluation.test().set();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto const &x0 = set.rows[static_cast<std::size_t>(set.pairs[i].x0)],
               &x1 = set.rows[static_cast<std::size_t>(set.pairs[i].x1)];
    file << fmt::format("{},{},{},{}", i, x1.object, x0.light, x1.light);
    for (auto const value : rows[i]) std::isfinite(value) ? file << fmt::format(",{:.6g}", value) : file << ",";
    file << "\n";
  }
}

nlohmann::ordered_json mean_of(std::vector<Row> const& rows, std::size_t column) {
  double sum = 0;
  std::size_t count = 0;
  for (auto const& row : rows)
    if (std::isfinite(row[column])) sum += row[column], ++count;
  return count > 0 ? nlohmann::ordered_json(sum / static_cast<double>(count)) : nlohmann::ordered_json(nullptr);
}

nlohmann::ordered_json summary(std::vector<Row> const& rows) {
  nlohmann::ordered_json json;
  auto const names = columns();
  for (std::size_t c = 0; c < names.size(); ++c) json[names[c]] = mean_of(rows, c);
  json["pairs"] = rows.size();
  return json;
}

data::Image8 light_thumbnail(at::Tensor const& env_hw3, std::int64_t size) {
  auto const ldr = env_hw3.clamp(0, 1).pow(1 / 2.2).permute({2, 0, 1}).unsqueeze(0);
  auto const small = at::upsample_nearest2d(ldr, {size / 2, size});
  return to_image(at::constant_pad_nd(small, {0, 0, size / 4, size - size / 2 - size / 4}, 1)[0]);
}

void write_sheet(std::string const& path, Evaluation& evaluation, std::int64_t wanted) {
  auto const pairs = evaluation.pairs(), shown = std::min(wanted, pairs);
  std::vector<std::vector<data::Image8>> rows;
  std::vector<std::string> captions;
  for (std::int64_t i = 0; i < shown; ++i) {
    auto const pair = (2 * i + 1) * pairs / (2 * shown);
    std::vector<at::Tensor> edited;
    auto const metrics = evaluation.run({pair}, &edited)[0];
    auto const& entry = evaluation.test().set().pairs[static_cast<std::size_t>(pair)];
    auto const view = i % evaluation.test().set().targets;
    auto const input = evaluation.test().images(entry.x0)[view], target = evaluation.test().images(entry.x1)[view];
    rows.push_back({to_image(input), light_thumbnail(evaluation.test().env(entry.x1), target.size(-1)),
                    to_image(edited[0][view]), to_image(target), to_image(error_picture(edited[0][view], target))});
    captions.push_back(fmt::format("{:.1f} dB", std::isfinite(metrics[1]) ? metrics[1] : metrics[0]));
  }
  data::write_png(path, picture_grid(rows, {"input", "light", "edited", "target", "error x4"}, captions, 2));
}

// Rows of all pairs, on every rank; `run` gets this rank's, a batch at a time.
std::vector<Row> over_ranks(dist::Communicator const& communicator, std::int64_t pairs, std::int64_t batch_size,
                            std::function<std::vector<Row>(std::vector<std::int64_t> const&)> const& run) {
  std::map<std::int64_t, Row> mine;
  std::vector<std::int64_t> batch;
  auto const flush = [&] {
    auto const rows = run(batch);
    for (std::size_t i = 0; i < batch.size(); ++i) mine[batch[i]] = rows[i];
    batch.clear();
  };
  for (std::int64_t pair = communicator.rank(); pair < pairs; pair += communicator.size()) {
    batch.push_back(pair);
    if (std::ssize(batch) == batch_size) flush();
  }
  if (!batch.empty()) flush();
  return gather(communicator, mine, pairs);
}

// One line per solver and number of steps: OUT/sweep.csv, and `sweep` of metrics.json.
nlohmann::ordered_json run_sweep(dist::Communicator const& communicator, Evaluation& evaluation,
                                 EvaluateOptions const& options) {
  auto table = nlohmann::ordered_json::array();
  for (auto const& editing : evaluation.sweep()) {
    auto const rows = over_ranks(communicator, evaluation.pairs(), options.batch,
                                 [&](auto const& batch) { return evaluation.run_edit(batch, editing); });
    auto const name = solver_label(editing);
    nlohmann::ordered_json line = {{"solver", name}, {"steps", editing.solver.steps}};
    if (name == "dopri5") line["steps"] = nullptr;
    for (std::size_t c = 0; c < kMetrics.size(); ++c) line[kMetrics[c]] = mean_of(rows, c);
    table.push_back(line);
  }
  if (communicator.rank() != 0 || table.empty()) return table;
  std::ofstream file(options.out + "/sweep.csv");
  file << fmt::format("solver,steps,{}\n", fmt::join(kMetrics, ","));
  for (auto const& line : table) {
    std::vector<std::string> cells;
    for (auto const& [name, value] : line.items())
      cells.push_back(value.is_null() ? "" : value.is_string() ? value.get<std::string>() : value.dump());
    file << fmt::format("{}\n", fmt::join(cells, ","));
  }
  return table;
}

}  // namespace

void evaluate(dist::Communicator const& communicator, LoadedModel const& loaded, EvaluateOptions const& options) {
  Evaluation evaluation(loaded, options);
  if (communicator.rank() == 0)
    std::filesystem::create_directories(options.out);  // fails now rather than after the work
  auto const rows = over_ranks(communicator, evaluation.pairs(), options.batch,
                               [&](auto const& batch) { return evaluation.run(batch, nullptr); });
  auto const sweep = run_sweep(communicator, evaluation, options);
  if (communicator.rank() == 0) {
    write_csv(options.out + "/pairs.csv", evaluation, rows);
    write_sheet(options.out + "/contact_sheet.png", evaluation, options.sheet_rows);
    auto json = summary(rows);
    if (!sweep.empty()) json["sweep"] = sweep;
    std::ofstream(options.out + "/metrics.json") << json.dump(2) << "\n";
    std::ofstream(options.out + "/settings.json") << evaluation.settings().dump(2) << "\n";
    if (!evaluation.lpips_absent().empty()) log_info("metrics.json has no lpips: " + evaluation.lpips_absent());
    bool const masked = !json["psnr_masked"].is_null();
    auto const shown = [&](std::string const& answer) {
      auto const& value = json[answer + (masked ? "psnr_masked" : "psnr")];
      return value.is_null() ? std::string("none") : fmt::format("{:.2f}", value.get<double>());
    };
    log_info(fmt::format("{} pairs: edit {} dB{}, no edit {}, oracle {} -> {}", rows.size(), shown(""),
                         masked ? " masked" : "", shown("no_edit_"), shown("oracle_"), options.out));
  }
  dist::barrier(communicator);
}

}  // namespace duoflow::launch
