#pragma once
// What the tensors of one joint micro-step take at most beside the model (with its weights in bf16), its gradients and the batch: predicted from
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
  bool fused = true;   // by the operators of model/fused, else by ATen's
};

// Bytes kept for the backward, and what comes on top while the largest piece is walked back.
struct ActivationBytes {
  double editor = 0, renderer = 0;  // kept at the same time: the editor's graph waits while pictures are rendered
  double pictures = 0;              // rendered, their losses and gradients
  double working = 0;               // transient
  double peak() const { return editor + renderer + pictures + working; }
};
ActivationBytes activation_bytes(ModelOptions const& options, ActivationShape const& shape);

// Kept by a reconstructor of so many input views that trains, and its transient part. shape: of the step that it is in.
double reconstructor_bytes(ModelOptions const& options, ActivationShape const& shape, std::int64_t input_views);

}  // namespace duoflow::model
