#pragma once
// Files of plain pairs that `duoflow import` takes, as sources for data/tools/pair_import.h.

#include <string>
#include <vector>

#include "data/tools/pair_import.h"

namespace duoflow::launch {

// A folder, or a file that ends in .h5, .hdf5, .safetensors, .npy or .npz.
bool may_hold_plain_pairs(std::string const& path);

// One .h5, .hdf5 or .safetensors file; a folder with x0.npy and x1.npy; a folder of such files, or of such folders
// (sorted by name, of one sort). DataError: none of these, or several.
std::vector<data::PlainSource> plain_pair_sources(std::string const& path);

}  // namespace duoflow::launch
