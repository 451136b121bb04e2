#pragma once
// What the tensors of one joint micro-step take at most beside the model, its gradients and the batch: predicted from
// sizes alone, before anything runs. A model of what model/transformer.cpp keeps for its backward, term by term; the
// tests hold it against the allocator's count (tests/launch/activation_memory_test.cpp).

#include <cstdint>

#include "model/options.h"

namespace duoflow::model {

struct ActivationShape {
  std::int64_t samples = 1, views = 1;  // of a micro-step; target views
  std::int64_t view_chunk = 0;          // rendered at once; 0: all
  bool editor_trains = true, renderer_trains = false;
  bool on_cpu = true;  // decides AttentionPath::automatic
};

// Bytes kept for the backward, and what comes on top while the largest piece is walked back.
struct ActivationBytes {
  double editor = 0, renderer = 0;  // kept at the same time: the editor's graph waits while pictures are rendered
  double pictures = 0;              // rendered, their losses and gradients
  double working = 0;               // transient
  double peak() const { return editor + renderer + pictures + working; }
};
ActivationBytes activation_bytes(ModelOptions const& options, ActivationShape const& shape);

// Kept by a reconstructor of so many input views, and its transient part; 0 where it does not train.
double reconstructor_bytes(ModelOptions const& options, std::int64_t samples, std::int64_t input_views, bool trains, bool on_cpu);

}  // namespace duoflow::model
