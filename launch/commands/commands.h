#pragma once
// The commands of the binary. Each adds its options to a CLI11 subcommand and returns what to run after parsing.

#include <functional>

#include "dist/runtime.h"

namespace CLI {
class App;
}

namespace duoflow::launch {

struct Command {
  CLI::App* app = nullptr;
  std::function<int(dist::Runtime&)> run;
};

Command add_synth(CLI::App& root);
Command add_ingest(CLI::App& root);
Command add_split(CLI::App& root);
Command add_merge(CLI::App& root);
Command add_repack(CLI::App& root);
Command add_index(CLI::App& root);
Command add_train(CLI::App& root);
Command add_encode(CLI::App& root);
Command add_evaluate(CLI::App& root);
Command add_edit(CLI::App& root);
Command add_step(CLI::App& root);
Command add_inspect(CLI::App& root);
Command add_verify(CLI::App& root);
Command add_import(CLI::App& root);
Command add_export(CLI::App& root);
Command add_compare(CLI::App& root);
Command add_doctor(CLI::App& root);

}  // namespace duoflow::launch
