#pragma once
// Which scenes an ingest is asked for, and paths that other machines wrote. Private to data/.

#include <string>
#include <vector>

#include "data/ingest/ingest_lvsm.h"
#include "data/ingest/light_sources.h"
#include "data/ingest/source_files.h"

namespace duoflow::data {

// The first pair whose OLD is the path or a folder above it, applied; the path itself when none is.
std::string remapped(std::string const& path, Remaps const& remaps);
bool climbs(std::string const& path);  // relative, and leads out of where it starts ("../x")
// PATH itself when it is there; in an archive, which no path of another machine can name, the member with the longest same tail.
std::string located(SourceFiles const& files, std::string const& path, std::string const& near);

struct ListedScene {
  std::string path;    // of its metadata
  std::string folder;  // where the list lies, or the metadata folder
};
// The scenes that the sources name (ingest_lvsm.h), in order, each once. Archives are opened. Relative lines of a list start at its
// folder. Says what it takes.
std::vector<ListedScene> listed_scenes(SourceFiles& files, IngestOptions const& options);

}  // namespace duoflow::data
