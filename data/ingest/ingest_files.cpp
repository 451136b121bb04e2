#include "data/ingest/ingest_files.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "data/images/linear_picture.h"
#include "data/parallel.h"
#include "data/images/picture.h"

namespace duoflow::data {
namespace {

using nlohmann::json;

FileFacts check_file(SourceFiles const& files, std::string const& path, FileWish const& wish, ColourRule rule) {
  FileFacts facts;
  if (!files.is_file(path)) {
    facts.missing = true;
    facts.problem = "missing";
    return facts;
  }
  try {
    std::string const bytes = files.read(path);
    facts.xxh3 = xxh3_hex(bytes.data(), bytes.size());
    switch (wish.kind) {
      case FileWish::Kind::picture: facts.size = check_picture(bytes, path, rule); break;
      case FileWish::Kind::light_code: facts.size = check_encoded(bytes, path); break;
      case FileWish::Kind::light_source: {
        LinearPicture map = decode_linear(bytes, path);
        if (rule == ColourRule::declared && !map.colour_problem.empty()) {
          throw DataError(fmt::format("{} has other colours than Rec. 709: {}; convert it, or ask for sRGB to be assumed", path, map.colour_problem));
        }
        for (float& value : map.colour.pixels) { value *= static_cast<float>(wish.strength); }
        facts.size = {map.colour.height, map.colour.width, 3};
        std::size_t const numbers = map.colour.pixels.size();
        std::string const repairs = repair(map.colour).text();
        if (!repairs.empty()) { facts.warning = fmt::format("of its {} numbers {}", numbers, repairs); }
      }
    }
  } catch (DataError const& error) {
    facts.problem = error.what();
  }
  return facts;
}

json to_json(FileFacts const& facts) {
  return {facts.size.height, facts.size.width, facts.size.channels, facts.xxh3, facts.missing, facts.problem, facts.warning};
}

FileFacts facts_of(json const& row) {
  FileFacts facts;
  facts.size = {row.at(0).get<std::int64_t>(), row.at(1).get<std::int64_t>(), row.at(2).get<std::int64_t>()};
  facts.xxh3 = row.at(3).get<std::string>();
  facts.missing = row.at(4).get<bool>();
  facts.problem = row.at(5).get<std::string>();
  facts.warning = row.at(6).get<std::string>();
  return facts;
}

}  // namespace

FileTable check_files(SourceFiles const& files, std::map<std::string, FileWish> const& wanted, IngestOptions const& options) {
  std::vector<std::pair<std::string, FileWish>> const all(wanted.begin(), wanted.end());
  auto const workers = static_cast<std::size_t>(options.exchange ? options.workers : 1);
  auto const worker = static_cast<std::size_t>(options.exchange ? options.worker : 0);
  ColourRule const rule = options.assume_srgb ? ColourRule::assume_srgb : ColourRule::declared;
  std::size_t const share = (all.size() + workers - 1 - worker) / workers;  // files worker, worker + workers, ...
  std::vector<FileFacts> facts(share);
  std::atomic<std::size_t> done{0};
  constexpr std::size_t kSayEvery = 20000;
  for_each_index(share, options.threads, [&](std::size_t i) {
    auto const& [path, wish] = all[worker + i * workers];
    facts[i] = check_file(files, path, wish, rule);
    if (++done % kSayEvery == 0 && options.say) { options.say(fmt::format("{} of {} files checked", done * workers, all.size())); }
  });

  FileTable table;
  if (!options.exchange) {
    for (std::size_t i = 0; i < share; ++i) { table.emplace(all[i].first, std::move(facts[i])); }
    return table;
  }
  json rows = json::array();
  for (FileFacts const& fact : facts) { rows.push_back(to_json(fact)); }
  // File names need not be UTF-8.
  std::vector<std::string> const texts = options.exchange(rows.dump(-1, ' ', false, json::error_handler_t::replace));
  for (std::size_t from = 0; from < workers; ++from) {
    json const others = json::parse(texts.at(from));
    for (std::size_t i = 0; i < others.size(); ++i) { table.emplace(all.at(from + i * workers).first, facts_of(others[i])); }
  }
  return table;
}

std::string read_checked(SourceFiles const& files, FileTable const& table, std::string const& path) {
  std::string bytes = files.read(path);
  std::string const& expected = table.at(path).xxh3;
  std::string const found = xxh3_hex(bytes.data(), bytes.size());
  if (found != expected) {
    throw DataError(fmt::format("{} changed after it was checked (xxh3 {} then, {} now), start again when nothing writes there", path, expected, found));
  }
  return bytes;
}

}  // namespace duoflow::data
