#!/usr/bin/env bash
# Makes demo/reconstruction.safetensors, the reconstructor and renderer that the quickstart starts from, from nothing:
# procedural scenes, then stage 1 for about an hour of one CPU core. Figures: benchmarks/results/demo_weights.md.
# Usage: launch/train_demo.sh [WORK_FOLDER] [THREADS]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-runs/demo}
threads=${2:-$(nproc)}
steps=${STEPS:-3600}
if [ ! -f "$work/scenes/manifest.json" ]; then
  ./build/duoflow synth --out "$work/scenes" --objects 2 --lights 138 --views 16 --size 64 --spp 64 --seed 0
fi
./build/duoflow train --config configs/quickstart_reconstruction.yaml --data "$work/scenes" --run "$work/run" \
  training.train_steps="$steps" training.lr=1e-3 training.warmup=200 training.checkpoint_every=300 training.vis_every=300 \
  training.print_every=50 dist.threads="$threads"
./build/duoflow export "$work/run" demo/reconstruction.safetensors --parts reconstructor,renderer --dtype bf16
