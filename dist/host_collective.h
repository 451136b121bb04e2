#pragma once
// Private to dist/*_backend.cpp: one collective computed in one place, where the tensors of all ranks are at hand.

#include <string>
#include <vector>

#include "dist/c10d_backend.h"

namespace duoflow::dist {

// "" if the ranks asked for the same thing; else who called what. By rank.
std::string disagreement(std::vector<Collective> const& ranks);

// Fills every rank's output. Sums are taken in rank order, so the result does not depend on who came first.
void compute(std::vector<Collective> const& ranks);

}  // namespace duoflow::dist
