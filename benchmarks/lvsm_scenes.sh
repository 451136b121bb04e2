#!/usr/bin/env bash
# The main job on another renderer's pictures: ingest of an LVSM scene folder, stage 1 from the demo weights, pairs, the joint
# stage 2, then evaluation on (a) objects that were trained on under lights that were not, (b) objects never seen. Two ranks.
# Usage: benchmarks/lvsm_scenes.sh SCENES [WORK]      SCENES: folder with train/ test/ source/; WORK: default runs/lvsm_scenes
#   STAGE1_STEPS, STAGE2_STEPS: lengths (default 2500, 1500); STAGE2_STEPS=0 ends with the pairs: what ablation/lvsm_scenes.toml takes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ $# -ge 1 ]] || { sed -n '/^# Usage/,/^#   STAGE1/p' "$0" | sed 's/^# //' >&2; exit 2; }
scenes=$(realpath "$1")
work=${2:-runs/lvsm_scenes}
held_out='dawn.exr hall.exr'  # maps: no scene under them is trained on
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
ranks=(mpirun --oversubscribe --bind-to none -n 2 ./build/duoflow)
mkdir -p "$work"

# Three lists from the two of the set: what trains, the same objects under held-out maps, other objects.
python3 - "$scenes" "$work" $held_out <<'PY'
import json, pathlib, sys
scenes, work, held_out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), set(sys.argv[3:])
def map_of(line):
    name, light = pathlib.PurePath(line).stem.split("_env_")
    (path,) = scenes.glob(f"source/{name}/*/env_{light}/env.json")
    return pathlib.PurePath(json.loads(path.read_text())["env_map"]).name
lines = (scenes / "train/full_list.txt").read_text().split()
kept = {"train": [x for x in lines if map_of(x) not in held_out], "lights": [x for x in lines if map_of(x) in held_out],
        "objects": (scenes / "test/full_list.txt").read_text().split()}
for name, list_ in kept.items():
    (work / f"{name}.txt").write_text("\n".join(list_) + "\n")
    print(f"{name}: {len(list_)} scenes")
PY

for part in train lights objects; do
  [[ -f $work/$part/manifest.json ]] || "${ranks[@]}" ingest --scenes "$work/$part.txt" \
    --remap "/data/relit/lvsm_scenes=$scenes" --out "$work/$part" --size 64 --env-height 32
done
frames=(data.input_frames=0,3,6,9 data.target_frames=1,2,4,5,7,8,10,11 data.exclude_lights=)
"${ranks[@]}" train --config configs/quickstart_reconstruction.yaml --data "$work/train" --run "$work/stage1" "${frames[@]}" \
  training.init_from=demo/reconstruction.safetensors training.train_steps="${STAGE1_STEPS:-2500}" training.lr=1e-3 training.warmup=100 \
  training.num_target_views=4 training.print_every=100
for part in train lights objects; do
  [[ -f $work/$part-pairs/manifest.json ]] || "${ranks[@]}" encode --checkpoint "$work/stage1" --data "$work/$part" --out "$work/$part-pairs"
done
[[ ${STAGE2_STEPS:-1500} -gt 0 ]] || exit 0
"${ranks[@]}" train --config configs/quickstart_joint.yaml --data "$work/train-pairs" --run "$work/stage2" "${frames[@]}" \
  training.init_from="$work/stage1" training.train_steps="${STAGE2_STEPS:-1500}" training.print_every=100
for part in lights objects; do
  "${ranks[@]}" evaluate --checkpoint "$work/stage2" --data "$work/$part-pairs" --train-data "$work/train-pairs" --out "$work/$part-evaluation"
  printf 'lvsm_scenes: %s %s\n' "$part" "$(tr -d '\n ' <"$work/$part-evaluation/metrics.json")"
done
