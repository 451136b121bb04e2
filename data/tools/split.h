#pragma once
// A data folder divided into parts that share no object, or no light, or neither: what trains shows nothing of what
// tests.
//
// A name's part follows from (seed, name) alone: u(seed, name) in [0,1) falls into the part whose share of the line [0,
// sum of fractions) holds it. So the parts' sizes are near the fractions for many names only, and data added later
// moves nothing. Names are those of the objects; by light those of the base lights, so that turned copies of one map
// (ingest_lvsm.h: base_light) stay together. Fractions may sum to less than 1: the rest is left out.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/tools/rewrite.h"

namespace duoflow::data {

struct Part {
  std::string name;     // of the folder OUT/NAME
  double fraction = 0;  // above 0
};
// object: every object is in one part. light: every base light is; pairs between lights of two parts are in none. both:
// what is in the same part by object and by light; the rest (two lines cross) is in none.
enum class SplitBy { object, light, both };

// Throws DataError: no part, a name twice or with a '/', a fraction not above 0, a sum above 1.
void check_parts(std::vector<Part> const& parts);
// Into `parts`; nullopt: left out. The same for ever: shares of old data sets depend on it.
std::optional<std::size_t> part_of(std::string const& name, std::uint64_t seed, std::vector<Part> const& parts);

struct SplitOptions {
  std::vector<Part> parts;
  SplitBy by = SplitBy::object;
  std::uint64_t seed = 0;
};
// One report per part. OUT is there when all parts are whole. DataError when a part gets no scene, or no pair of a pair
// folder.
std::vector<RewriteReport> split_folder(std::string const& directory, SplitOptions const& split,
                                        RewriteOptions const& options);

}  // namespace duoflow::data
