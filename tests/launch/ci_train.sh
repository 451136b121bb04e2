#!/usr/bin/env bash
# A short real run under mpirun: scenes -> stage 1 -> pairs -> stage 2 -> resume -> evaluation, on procedural scenes and, when
# ../shared/data/lvsm_scenes is there, on another renderer's pictures through ingest. The figures mean nothing but that it ran.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ranks=(mpirun --oversubscribe --bind-to none -n 2 ./build/duoflow)
small=(model.image_tokenizer.image_size=32 model.env_tokenizer.image_size=16 model.transformer.n_latent_vectors=32
  training.init_from= training.num_target_views=2 training.print_every=10 data.input_frames=0,2,4,6 data.exclude_lights=)

run() {  # NAME SCENES TARGET_FRAMES
  local name=$1 scenes=$2 targets=$3
  "${ranks[@]}" train --config configs/quickstart_reconstruction.yaml --data "$scenes" --run "$work/$name/stage1" \
    "${small[@]}" training.train_steps=20 training.lr=1e-3 data.target_frames="$targets"
  "${ranks[@]}" encode --checkpoint "$work/$name/stage1" --data "$scenes" --out "$work/$name/pairs"
  local joint=(train --config configs/quickstart_joint.yaml --data "$work/$name/pairs" --run "$work/$name/stage2" "${small[@]}"
    training.init_from="$work/$name/stage1" data.target_frames="$targets")
  "${ranks[@]}" "${joint[@]}" training.train_steps=20
  "${ranks[@]}" "${joint[@]}" training.train_steps=30
  "${ranks[@]}" evaluate --checkpoint "$work/$name/stage2" --data "$work/$name/pairs" --out "$work/$name/evaluation" --rows 4
  ./build/duoflow verify "$work/$name/pairs"
  ./build/duoflow verify "$work/$name/stage2"
  printf 'ci_train: %s ' "$name"
  tr -d '\n ' <"$work/$name/evaluation/metrics.json"
  printf '\n'
}

./build/duoflow synth --out "$work/scenes" --objects 2 --lights 4 --views 8 --size 32 --spp 16 --env-height 16
run procedural "$work/scenes" 0-7
shared=../shared/data/lvsm_scenes
if [ -d "$shared" ]; then
  "${ranks[@]}" ingest --scenes "$shared/test/full_list.txt" --remap "/data/relit/lvsm_scenes=$(realpath "$shared")" \
    --out "$work/lvsm" --size 32 --env-height 16
  run lvsm "$work/lvsm" 0-11
else
  echo "ci_train: $shared is not there, the ingest part is left out"
fi
