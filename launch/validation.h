#pragma once
// Validation: how well the model in training edits held-out pairs, every training.eval_every steps. It draws no random
// number that training draws and changes nothing that training uses: with or without it a run has the same bytes.

#include <cstdint>

#include "dist/communicator.h"
#include "launch/config.h"
#include "launch/editing.h"
#include "launch/pair_reader.h"
#include "model/light_encoding.h"
#include "model/scene_model.h"

namespace duoflow::launch {

class Validation {
 public:
  struct Score {
    double psnr = 0, psnr_masked = 0;  // means over pairs of means over views; masked: NaN without any foreground
    std::int64_t pairs = 0;
  };

  // Opens training.eval_data. DataError: not pair shards, other sizes than the model's, latents of another reconstructor.
  Validation(Config const& config, model::SceneModel const& model, at::Device device);
  // Of training.eval_pairs pairs spread evenly over the folder (all, if there are fewer), edited with the config's
  // solver and the weights as they are trained (not their average). Collective; every rank gets the score.
  Score run(dist::Communicator const& communicator) const;

 private:
  std::pair<double, double> measure(std::int64_t pair) const;

  model::SceneModel const& model_;
  at::Device device_;
  PairReader reader_;
  model::LightEncoding encoding_;
  EditOptions editing_;
  std::int64_t env_height_, wanted_;
};

}  // namespace duoflow::launch
