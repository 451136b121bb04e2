#pragma once
// What `inspect` says of a data folder: as text, and as one JSON object.

#include <optional>
#include <string>

#include "data/tools/folder_summary.h"

namespace duoflow::launch {

// Lines, each ended. Objects beyond the first few are counted only.
std::string folder_report(data::FolderSummary const& summary, std::optional<data::LatentSummary> const& latents);
// Everything of both, one line.
std::string folder_report_json(data::FolderSummary const& summary, std::optional<data::LatentSummary> const& latents);

}  // namespace duoflow::launch
