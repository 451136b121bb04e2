#pragma once
// Mixture: which of several folders the sample at global position p comes from, in exact proportions.
//
// Weights are whole numbers w_i with sum W. Of any W positions that begin at a multiple of W exactly w_i are folder
// i's; of the first p, for every p, as many as p w_i / W but for at most half a sample per halving of the list of
// folders (ceil(log2(folders)) / 2 altogether). The list is halved until one folder is left; each halving is the
// rounded line p -> round(p w_left / w_both). A pure function: O(log folders), no memory, no state.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace duoflow::data {

class Mixture {
 public:
  // DataError: no folder, a weight of 0, or weights whose sum is beyond 2^62.
  explicit Mixture(std::vector<std::uint64_t> weights);

  struct Draw {
    std::size_t folder = 0;
    std::uint64_t own_position = 0;  // how many of the folder's samples came before
  };
  Draw at(std::uint64_t position) const;

  std::vector<std::uint64_t> const& weights() const { return weights_; }  // without common divisor
  double share(std::size_t folder) const;                                 // of the positions

 private:
  std::vector<std::uint64_t> weights_, before_;  // before_: sums of the weights of the folders before each, then all
};

}  // namespace duoflow::data
