#!/usr/bin/env bash
# The tables of benchmarks/results/memory.md: peak activation memory of a joint micro-step in MiB.
#   benchmarks/memory/table.sh [CONFIG]     after cmake --build build --target activation_memory
set -euo pipefail
cd "$(dirname "$0")/../.."
config=${1:-configs/quickstart_joint.yaml}
measure() { build/activation_memory "$config" "$@"; }

row() {
  name=$1
  shift
  printf '| %s |' "$name"
  for views in 1 4 8; do printf ' %s |' "$(measure "training.num_target_views=$views" "$@")"; done
  echo
}

echo "| kept for the backward | 1 view | 4 views | 8 views |"
echo "|---|---|---|---|"
row "everything" training.grad_checkpoint_every=0
row "all but the attention of each block" training.grad_checkpoint_every=1 training.grad_checkpoint_part=attention
row "all but the MLP of each block" training.grad_checkpoint_every=1 training.grad_checkpoint_part=mlp
row "what goes into each block" training.grad_checkpoint_every=1
row "what goes into every third block" training.grad_checkpoint_every=3
row "everything, views one by one" training.grad_checkpoint_every=0 training.render_view_chunk=1
row "what goes into each block, views one by one" training.grad_checkpoint_every=1 training.render_view_chunk=1
