#!/usr/bin/env bash
# Where the time of a quickstart step goes, and samples/s, at one and two ranks of one thread each; same global batch.
# Usage: benchmarks/step_times.sh [QUICKSTART_FOLDER] [STEPS]      default runs/quickstart (made by launch/quickstart.sh), 100
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-runs/quickstart} steps=${2:-100}
for needed in scenes train_pairs stage1; do
  [[ -d $folder/$needed ]] || { echo "step_times: $folder/$needed is missing; run launch/quickstart.sh first" >&2; exit 2; }
done
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n1
one() {  # STAGE CONFIG DATA RANKS
  local run=$work/$1-$4
  mpirun --quiet --oversubscribe --bind-to none -n "$4" ./build/duoflow train --config "$2" --data "$3" --run "$run" --resume never \
    training.init_from="$folder/stage1" training.train_steps="$steps" training.print_every=1 dist.threads=1 >/dev/null 2>&1 ||
    { tail -n 3 "$run/log.txt" >&2; exit 1; }
  local rate  # the median: the first steps warm up
  rate=$(sed -nE 's/.*"samples_per_s":([0-9.]+).*/\1/p' "$run/metrics.jsonl" | sort -n | awk '{v[NR]=$1} END {print v[int((NR+1)/2)]}')
  printf '%s, %d rank(s): median %.1f samples/s; %s; %s\n' "$1" "$4" "$rate" \
    "$(sed -n 's/.*step times of rank 0 //p' "$run/log.txt")" "$(sed -n 's/.*info: \(peak resident memory.*\)/\1/p' "$run/log.txt")"
}
for ranks in 1 2; do one stage1 configs/quickstart_reconstruction.yaml "$folder/scenes" $ranks; done
for ranks in 1 2; do one stage2 configs/quickstart_joint.yaml "$folder/train_pairs" $ranks; done
