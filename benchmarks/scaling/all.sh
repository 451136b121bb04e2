#!/usr/bin/env bash
# All scaling benchmarks into one results file, in about 13 minutes on two quiet cores. As root: two hosts are made.
#
#   benchmarks/scaling/all.sh [RESULTS.md]      default benchmarks/results/scaling.md, with scaling_lvsm_256.svg beside it
#   QUICK=1 benchmarks/scaling/all.sh F.md      a few steps each: whether everything runs; the figures mean nothing
#
# Makes its own data: the quickstart's sizes, a model that has hardly learned (times do not depend on that).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
results=${1:-benchmarks/results/scaling.md}
if [[ -n ${QUICK:-} ]]; then steps=4 rounds=1 repeats=5; else steps=${STEPS:-12} rounds=${ROUNDS:-3} repeats=30; fi
plot=$(dirname "$results")/scaling_lvsm_256.svg
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PYTHONDONTWRITEBYTECODE=1

tests/launch/e2e/two_hosts.sh --rate 1gbit --only-check
[[ -n ${NO_BUILD:-} ]] || cmake --build build --target duoflow collectives step_profile >/dev/null
load=$(cut -d' ' -f1 /proc/loadavg)
work=$(mktemp -d)
say_why() { echo "all.sh: the data could not be made: $(tail -n1 "$work"/log)" >&2; exit 1; }
trap 'rm -rf "$work"' EXIT
echo "making data" >&2
./build/duoflow synth --out "$work/scenes" --objects 1 --lights 6 --views 16 --size 64 --spp 4 --env-height 32 >"$work/log" 2>&1 || say_why
./build/duoflow train --config configs/quickstart_reconstruction.yaml --data "$work/scenes" --run "$work/stage1" training.train_steps=3 \
  data.exclude_lights=none data.target_frames=0-15 >"$work/log" 2>&1 || say_why
./build/duoflow encode --checkpoint "$work/stage1" --data "$work/scenes" --out "$work/pairs" >"$work/log" 2>&1 || say_why
data=(--data "$work/pairs" --init "$work/stage1")

section() {  # section TITLE COMMAND...: what it prints, under its command without this machine's paths
  echo "$1" >&2
  printf '\n## %s\n\n`%s`\n\n' "$1" "$(sed "s|$work/||g; s|^as_code ||" <<<"${*:2}")"
  "${@:2}" 2>"$work/err" || { cat "$work/err" >&2; exit 1; }
}
as_code() { echo '```'; "$@"; echo '```'; }
collectives=(build/collectives --repeats "$repeats")
one_host=(mpirun -n 2 --oversubscribe --bind-to none "${collectives[@]}")
shaped=(tests/launch/e2e/two_hosts.sh --slots 1 --rate 1gbit mpirun -n 2 --bind-to none "${collectives[@]}" --mib 0.001,1,4)

{
  printf '# Scaling\n\nMachine: %s x %s, %s GiB; %s, commit %s, load at the start %s. ' "$(nproc)" \
    "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n1)" "$(awk '/MemTotal/ {printf "%.0f", $2 / 1048576}' /proc/meminfo)" \
    "$(date -u +%F)" "$(git rev-parse --short HEAD)" "$load"
  printf 'Command: `benchmarks/scaling/all.sh`; the head of each program says what its columns mean. Hosts are network\n'
  printf 'namespaces of this machine, so both ranks of two hosts share its cores.\n'
  if [[ -n ${QUICK:-} ]]; then printf '\n**QUICK run: the figures mean nothing.**\n'; fi
  section "Collectives, two ranks on one host (shared memory)" as_code "${one_host[@]}"
  section "Collectives, two ranks on two hosts, 1 Gbit/s" as_code "${shaped[@]}"
  section "Strong and weak scaling of train" python3 benchmarks/scaling/strong_weak.py "${data[@]}" --steps $((2 * steps))
  section "Overlap on a shaped link" python3 benchmarks/scaling/overlap.py --steps "$steps"
  section "Statistics exchange and reproducible mode" python3 benchmarks/scaling/mode_costs.py "${data[@]}" --steps $((2 * steps)) --rounds $rounds
  section "Memory of a rank with ZeRO-1" python3 benchmarks/scaling/zero_memory.py
  section "Model against measurements that it was not fitted to" python3 benchmarks/scaling/model.py check --steps "$steps"
  section "Model: lvsm_256 on 8-GPU H100 nodes" python3 benchmarks/scaling/model.py predict --plot "$plot"
  printf '\n![predicted efficiency](%s)\n' "$(basename "$plot")"
} > "$work/results.md"
cp "$work/results.md" "$results"
echo "$results ($SECONDS s)" >&2
