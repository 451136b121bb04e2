#!/usr/bin/env bash
# Makes demo/reconstruction.safetensors, the reconstructor and renderer that the quickstart starts from, from nothing: procedural
# scenes, then stage 1 in two parts (16 views until light is transmitted, then 80 views until unseen views come out), about
# an hour of one CPU core. Figures: benchmarks/results/demo_weights.md.
# Usage: launch/train_demo.sh [WORK_FOLDER] [THREADS]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-runs/demo}
threads=${2:-$(nproc)}
few="0-2,4-6,8-10,12-14"
scenes() {  # FOLDER VIEWS SPP
  [ -f "$1/manifest.json" ] || ./build/duoflow synth --out "$1" --objects 2 --lights 138 --views "$2" --size 64 --spp "$3" --seed 0
}
stage1() {
  ./build/duoflow train --config configs/quickstart_reconstruction.yaml "$@" training.lr=1e-3 training.print_every=50 \
    dist.threads="$threads"
}
scenes "$work/scenes" 16 64
stage1 --data "$work/scenes" --run "$work/run" training.train_steps=3600 training.warmup=200 \
  training.checkpoint_every=300 training.vis_every=300 training.num_target_views=4 data.target_frames="$few"
scenes "$work/scenes80" 80 32
stage1 --data "$work/scenes80" --run "$work/run80" training.init_from="$work/run" training.train_steps=2000 training.warmup=100 \
  training.checkpoint_every=250 training.vis_every=250
./build/duoflow export "$work/run80" demo/reconstruction.safetensors --parts reconstructor,renderer --dtype bf16
