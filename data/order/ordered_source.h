#pragma once
// The order of a run as a BatchSource: the loader asks for the n-th sample that the run trains on, for n from 0 without
// end; skipped positions are passed over, the mixture names the folder, the folder's source has the sampler.
//
// Fields: those of the folders' sources, which must be alike, then position i64 [1] (in the order, skipped ones
// counted: what the sample's random numbers are drawn from) and folder i64 [1] (its number in the list).

#include <memory>
#include <string>
#include <vector>

#include "data/loading/loader.h"
#include "data/order/mixture.h"
#include "data/order/skipped_positions.h"

namespace duoflow::data {

struct FolderSource {
  std::string directory;  // for messages
  std::shared_ptr<BatchSource const> source;
};

// mixture: null for one folder. DataError naming both folders and both values: fields of other types or sizes.
std::shared_ptr<BatchSource const> make_ordered_source(std::vector<FolderSource> folders,
                                                       std::shared_ptr<Mixture const> mixture,
                                                       SkippedPositions skipped);

}  // namespace duoflow::data
