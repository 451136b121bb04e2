#!/usr/bin/env bash
# The main job end to end on this machine: set-up, scenes, stage 1 (a few steps from the demo weights), pairs, stage 2 with the
# joint loss on two mpirun ranks, evaluation on lights and views never trained on. About 15 minutes on two cores from a bare
# Debian 12; a repeated call goes on where the last one stopped.
# Usage: launch/quickstart.sh [--from-scratch] [--work FOLDER]
#   --from-scratch  trains stage 1 from nothing (about an hour of one core) instead of starting from demo/reconstruction.safetensors
set -euo pipefail
cd "$(dirname "$0")/.."
work=runs/quickstart
init=demo/reconstruction.safetensors
stage1=()
while [ $# -gt 0 ]; do
  case $1 in
    --from-scratch) init=; stage1=(training.train_steps=3600 training.lr=1e-3 training.warmup=200 training.vis_every=300); shift ;;
    --work) work=$2; shift 2 ;;
    *) echo "quickstart.sh: unknown option $1; usage: launch/quickstart.sh [--from-scratch] [--work FOLDER]" >&2; exit 2 ;;
  esac
done
started=$SECONDS
say() { printf '\n== [%3d s] %s\n' "$((SECONDS - started))" "$*"; }

say "set-up and build"
./launch/setup.sh --build
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
duoflow=./build/duoflow
ranks=(mpirun --quiet --oversubscribe --bind-to none -n 2 "$duoflow")

say "scenes: 2 objects under 138 lights, 80 views each"
[ -f "$work/scenes/manifest.json" ] || "$duoflow" synth --out "$work/scenes" --objects 2 --lights 138 --views 80 --size 64 --spp 32 --seed 0

say "stage 1: reconstructor and renderer (lights env_000 to env_009 and views 3,7,11,15 are never trained on)"
"${ranks[@]}" train --config configs/quickstart_reconstruction.yaml --data "$work/scenes" --run "$work/stage1" \
  ${init:+training.init_from=$init} "${stage1[@]}"

say "pairs: latents of every scene, all ordered light pairs"
[ -f "$work/train_pairs/manifest.json" ] || "${ranks[@]}" encode --checkpoint "$work/stage1" --data "$work/scenes" --out "$work/train_pairs" --exclude-lights 'env_00?'
[ -f "$work/test_pairs/manifest.json" ] || "${ranks[@]}" encode --checkpoint "$work/stage1" --data "$work/scenes" --out "$work/test_pairs" --lights 'env_00?' --target-frames 3,7,11,15

say "stage 2: the flow editor, velocity and rendering loss, two ranks; stopped on purpose after a minute"
stage2=(train --config configs/quickstart_joint.yaml --data "$work/train_pairs" --run "$work/stage2" training.init_from="$work/stage1")
code=0
timeout --preserve-status --signal=USR2 60 "${ranks[@]}" "${stage2[@]}" || code=$?
[ "$code" -eq 0 ] || [ "$code" -eq 75 ] || exit "$code"  # 75: a checkpoint was written, the same command goes on
if [ "$code" -eq 75 ]; then
  say "stage 2: resumed from the checkpoint of the stop"
  "${ranks[@]}" "${stage2[@]}"
fi

say "evaluation on lights and views never trained on"
"${ranks[@]}" evaluate --checkpoint "$work/stage2" --data "$work/test_pairs" --train-data "$work/train_pairs" --out "$work/evaluation"
cat "$work/evaluation/metrics.json"

say "done"
cat <<TXT
pictures     $work/evaluation/contact_sheet.png   (input | light | edited | target | error)
per pair     $work/evaluation/pairs.csv
curves       tensorboard --logdir $work           ($work/stage2/metrics.jsonl as text)
checkpoints  $work/stage2/checkpoints             (the same command again resumes from the newest)
TXT
