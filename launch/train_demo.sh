#!/usr/bin/env bash
# Makes demo/reconstruction.safetensors, the reconstructor and renderer that the quickstart starts from, from nothing: procedural
# scenes, then stage 1 in four parts with more and more views (few until light is transmitted, many until unseen views come out),
# about an hour of two CPU cores. What it measures at the end: rendering the target latents (oracle) and the input latents (no
# edit) under lights and at views that were in no part. Figures: benchmarks/results/demo_weights.md.
# Usage: launch/train_demo.sh [WORK_FOLDER] [RANKS]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-runs/demo}
ranks=${2:-$(nproc)}  # one thread each: at 64 pixels two ranks are 1.6 times as fast as one rank with two threads
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
duoflow=(mpirun --quiet --oversubscribe --bind-to none -n "$ranks" ./build/duoflow)
scenes() {  # VIEWS PATHS_PER_PIXEL
  [ -f "$work/scenes$1/manifest.json" ] || ./build/duoflow synth --out "$work/scenes$1" --objects 2 --lights 138 --views "$1" --size 64 --spp "$2" --seed 0
}
part() {  # NAME VIEWS STEPS START OVERRIDES..: the quickstart's four test views 3,7,11,15 are in no part
  local name=$1 views=$2 steps=$3 start=$4 frames="0-2,4-6,8-10,12-14"
  shift 4
  [ "$views" -le 16 ] || frames+=",16-$((views - 1))"
  "${duoflow[@]}" train --config configs/quickstart_reconstruction.yaml --data "$work/scenes$views" --run "$work/$name" \
    training.init_from="$start" training.train_steps="$steps" training.lr=1e-3 training.print_every=100 training.vis_every=400 \
    training.checkpoint_every=400 dist.threads=1 data.target_frames="$frames" "$@"
}
scenes 16 64
scenes 80 32
scenes 300 32
part run16 16 3600 "" training.warmup=200 training.num_target_views=4
part run80 80 2000 "$work/run16" training.warmup=100
part run80b 80 6000 "$work/run80" training.warmup=100
part run300 300 2800 "$work/run80b" training.warmup=100
./build/duoflow export "$work/run300" demo/reconstruction.safetensors --parts reconstructor,renderer --dtype bf16
[ -f "$work/test_pairs/manifest.json" ] || "${duoflow[@]}" encode --checkpoint "$work/run300" --data "$work/scenes80" \
  --out "$work/test_pairs" --lights 'env_00?' --target-frames 3,7,11,15
"${duoflow[@]}" evaluate --checkpoint "$work/run300" --data "$work/test_pairs" --out "$work/evaluation"
