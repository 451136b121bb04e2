#!/usr/bin/env bash
# What a machine with one GPU can show: agreement of CPU and GPU, a timed joint training at configs/lvsm_256.yaml with its MFU, its
# ratio to the same step in PyTorch, its profile, the CUDA kernels one by one, the step as a CUDA graph, NCCL at one rank, two ranks on
# one GPU. Runs from the folder that launch/bundle.sh packs (or from the repository after a build); needs Python with torch, no packages,
# no network; torch.compile's C compiler for the ratio to it. The pictures are path traced (a bundle brings them along), the weights
# are random: only time is measured.
# Usage: benchmarks/gpu.sh [--cpu] [--parts "NAME.."] [--steps N] [--batches "N N.."] [--variants LIST] [--peak TFLOPS] [--limit SECONDS]
#                          [--work FOLDER] [--results FILE] [--scenes FOLDER]
#   --cpu      dry run of the same path where there is no GPU: the device is the CPU and every size is tiny; its times mean nothing
#   --parts    only these, of: machine tests agreement training peer profile kernels graph one-rank two-ranks (default: all, in this order)
#   --steps    timed steps after 5 of warm-up (default 20)
#   --batches  samples per step to time, in turn (default "2 4"); one that does not fit the memory ends with the message a user gets
#   --variants what the PyTorch peer is (default eager,compile; names of benchmarks/peer/compare.py)
#   --peak     bf16 TFLOP/s of the GPU that MFU refers to (default: the data sheet's, by name: A100 312, H100 and H200 989)
#   --limit    seconds for everything (default 570; 2280 with --cpu): parts that come too late are not measured, which is said
#   --work     folder for data and runs (default: a new one under /tmp, removed at the end); what a former call made there is used again
#   --results  file written (default: gpu-results.txt here, gpu-dry-run.txt with --cpu)
#   --scenes   only make the scenes of such a run, in this folder: launch/bundle.sh packs them as benchmarks/scenes, where a run finds
#              them, since the bundle has no Embree to make them with
# About eight minutes on a GPU with 16 CPU cores, by estimate. Exit code 1 when a part failed or was not measured; the others still run.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command_line="benchmarks/gpu.sh $*"
device=cuda parts='' steps=20 batches='2 4' variants=eager,compile peak='' limit='' work='' results='' scenes=''
usage() { sed -n '/^# Usage/,/^# About/p' "${BASH_SOURCE[0]}" | sed 's/^# //'; }
while [[ $# -gt 0 ]]; do
  case $1 in
    --cpu) device=cpu; shift ;;
    --parts|--steps|--batches|--variants|--peak|--limit|--work|--results|--scenes)
      [[ $# -ge 2 ]] || { echo "gpu.sh: error: $1 has no value" >&2; exit 2; }
      declare "${1#--}=$2"; shift 2 ;;
    -h|--help) usage; exit 0 ;;
    *) echo "gpu.sh: error: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
done

duoflow=
for candidate in "${DUOFLOW:-}" "$here/duoflow" "$here/build-gpu/duoflow" "$here/build/duoflow"; do
  if [[ -f $candidate && -x $candidate ]]; then duoflow=$candidate; break; fi
done
[[ -n $duoflow ]] || { echo "gpu.sh: error: no duoflow beside benchmarks/. Unpack the bundle, build, or set DUOFLOW" >&2; exit 2; }

# ---- sizes --------------------------------------------------------------------------------------------------------------
# `small` is for agreement, where a CPU must keep up; `timed` is what lvsm_256.yaml says, or tiny in a dry run.
tiny=(model.transformer.encoder_n_layer=2 model.transformer.decoder_n_layer=2 model.transformer.editor.n_layer=2)
small=("${tiny[@]}" model.transformer.d=128 model.transformer.n_latent_vectors=128 model.image_tokenizer.image_size=64
       model.env_tokenizer.image_size=32 training.use_amp=false training.warmup=0 training.lr=1e-3 training.print_every=1)
small_scenes=(64 32)  # height of pictures, of light maps
timed=() timed_scenes=(256 256) warm_up=5
if [[ $device == cpu ]]; then
  tiny+=(model.transformer.d=32 model.transformer.d_head=16 model.transformer.n_latent_vectors=16 dist.threads=1)
  small=("${small[@]}" "${tiny[@]}" model.image_tokenizer.image_size=16 model.env_tokenizer.image_size=16)
  small_scenes=(16 16)
  timed=("${tiny[@]}" model.image_tokenizer.image_size=16 model.env_tokenizer.image_size=16)
  timed_scenes=("${small_scenes[@]}") warm_up=2
  [[ $steps -le 4 ]] || steps=4
fi
make_scenes=("$duoflow" synth --objects 1 --lights 3 --views 12 --spp 4)
if [[ -n $scenes ]]; then
  for sides in "${small_scenes[*]}" "${timed_scenes[*]}"; do
    folder=$scenes/${sides/ /-}
    [[ -e $folder/manifest.json ]] || "${make_scenes[@]}" --out "$folder" --size "${sides% *}" --env-height "${sides#* }" || exit
  done
  exit 0
fi

python=python3
if [[ -x $here/.venv/bin/python ]]; then python=$here/.venv/bin/python; fi
"$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' || { echo "gpu.sh: error: $python has no torch. Install torch 2.11 for it" >&2; exit 2; }
if [[ $device == cuda ]]; then
  "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
    { echo "gpu.sh: error: torch sees no CUDA device. Run it where there is one, or try the path with --cpu" >&2; exit 2; }
fi
if [[ -z $peak ]]; then
  case $(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null) in
    *H100*|*H200*) peak=989 ;;
    *A100*) peak=312 ;;
    *) peak=0 ;;
  esac
fi
if [[ -z $work ]]; then work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; fi
mkdir -p "$work"
if [[ -z $results ]]; then results=gpu-results.txt; [[ $device == cuda ]] || results=gpu-dry-run.txt; fi
config=$here/configs/lvsm_256.yaml
if [[ -d $here/benchmarks/packages ]]; then export PYTHONPATH=$here/benchmarks/packages${PYTHONPATH:+:$PYTHONPATH}; fi
for name in $parts; do
  [[ " machine tests agreement training peer profile kernels graph one-rank two-ranks " == *" $name "* ]] ||
    { echo "gpu.sh: error: there is no part $name" >&2; exit 2; }
done

# ---- parts --------------------------------------------------------------------------------------------------------------
started=$SECONDS
slack=1  # of the parts' times: none on a GPU, whose time is dear
if [[ $device == cpu ]]; then slack=4; fi
[[ -n $limit ]] || limit=$((570 * slack))
all_end=$((started + limit)) part_end=$all_end
failed=()
say() { printf '\n== [%3d s] %s\n' "$((SECONDS - started))" "$*"; }
part() {  # part NAME SECONDS TITLE FUNCTION: goes on after a failure, which is said
  if [[ -n $parts && " $parts " != *" $1 "* ]]; then return; fi
  say "$3"
  part_end=$((SECONDS + $2 * slack < all_end ? SECONDS + $2 * slack : all_end))
  if [[ $((part_end - SECONDS)) -lt 3 ]]; then
    echo "  NOT MEASURED: no time is left of --limit $limit; again with --parts $1"
    failed+=("$1")
  elif ! "$4"; then
    failed+=("$1")
    echo "  FAILED$([[ $SECONDS -lt $part_end ]] || echo ': its time was up; again with --parts '"$1")"
  fi
}
limited() {  # limited COMMAND..: until the part's end
  local left=$((part_end - SECONDS))
  if [[ $left -lt 1 ]]; then echo "  not run, the part's time is up: ${*:0:3}"; return 124; fi
  timeout -k 5 "$left" "$@"
}
quiet() {  # quiet NAME COMMAND..: the output only when it fails or hangs
  local log=$work/$1.log
  shift
  if ! limited "$@" >"$log" 2>&1; then
    echo "  failed: $*"
    tail -n 12 "$log" | cut -c1-400 | sed 's/^/    /'
    return 1
  fi
}
does_not_fit() { grep -qi 'out of memory' "$1"; }
tensors() { limited "$python" "$here/benchmarks/gpu_tensors.py" "$@"; }
report() { limited "$python" "$here/benchmarks/gpu_report.py" "$@"; }
run_joint() {  # run_joint NAME DATA STAGE1 OVERRIDES..
  local name=$1 data=$2 stage1=$3
  shift 3
  quiet "$name" "${launcher[@]}" "$duoflow" train --config "$config" --data "$work/$data" --run "$work/$name" --resume never \
    training.init_from="$work/$stage1" training.checkpoint_every=1000000 "$@"
}
make_pairs() {  # make_pairs NAME SIZE ENV_HEIGHT OVERRIDES..: scenes, one step of stage 1, pairs
  local name=$1 size=$2 env_height=$3
  local scenes=$here/benchmarks/scenes/$size-$env_height
  shift 3
  if [[ -e $work/$name-pairs/manifest.json ]]; then return; fi
  if [[ ! -e $scenes/manifest.json ]]; then
    scenes=$work/$name-scenes
    quiet "$name-synth" "${make_scenes[@]}" --out "$scenes" --size "$size" --env-height "$env_height" || return 1
  fi
  quiet "$name-stage1" "$duoflow" train --config "$config" --data "$scenes" --run "$work/$name-stage1" --resume never \
    "$@" objective=reconstruction training.train_steps=1 training.warmup=0 training.batch_size_per_gpu=1 dist.device=$device &&
    quiet "$name-encode" "$duoflow" encode --checkpoint "$work/$name-stage1" --data "$scenes" --out "$work/$name-pairs" --batch 1
}
launcher=()

machine() {
  date -u +'  %Y-%m-%d %H:%M UTC'
  echo "  command: $command_line"
  echo "  CPU: $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n1), $(nproc) threads"
  if command -v nvidia-smi >/dev/null; then nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | sed 's/^/  GPU: /'
  else echo "  GPU: none (no nvidia-smi)"; fi
  limited "$python" -c 'import torch; print("  Python torch", torch.__version__, "CUDA", torch.version.cuda)'
  limited "$duoflow" doctor | sed 's/^/  /'
}

cuda_tests() {
  if [[ $device == cpu ]]; then echo "  not run: they need a GPU"; return 0; fi
  local program
  for program in "$here/cuda_test" "$here/build-gpu/tests/gpu/cuda_test"; do
    if [[ -x $program ]]; then
      quiet cuda_test "$program" || return 1
      grep -E '^\[  PASSED|^\[=+\] [0-9]+ tests' "$work/cuda_test.log" | sed 's/^/  /'
      return 0
    fi
  done
  echo "  no cuda_test here: bundle the GPU build"
  return 1
}

kernels() {  # times of the fused operators against the memory bound, of attention's backends
  if [[ $device == cpu ]]; then echo "  not run: they need a GPU"; return 0; fi
  local program
  for program in "$here/gpu_kernels" "$here/build-gpu/benchmarks/gpu_kernels/gpu_kernels"; do
    if [[ -x $program ]]; then
      limited "$program" >"$work/kernels.log" 2>&1
      local code=$?
      cat "$work/kernels.log"
      kernel_shares "$work/kernels.log"
      return $code
    fi
  done
  echo "  no gpu_kernels here: bundle the GPU build"
  return 1
}

small_run() {  # three steps on the CPU, which others are compared with: the velocity head is zero before, and the editor's gradients with it
  make_pairs small "${small_scenes[@]}" "${small[@]}" || return 1
  [[ -e $work/small-cpu/checkpoints/latest ]] ||
    run_joint small-cpu small-pairs small-stage1 "${small[@]}" training.train_steps=3 training.batch_size_per_gpu=2 dist.device=cpu
}

kernel_shares() {  # the column that ends in %, of memory-bound kernels alone
  awk '{ for (i = 1; i <= NF; ++i) if ($i ~ /^[0-9.]+%$/) { share = $i + 0; ++all; if (share >= 80) ++reach; if (all == 1 || share < least) least = share } }
    END { if (all) printf "  claim: %d of %d kernels reach 80 %% of the memory bound, the lowest %.1f %%\n", reach, all, least
          else print "  claim: no kernel was measured" }' "$1"
}

agreement() {
  small_run && quiet export "$duoflow" export "$work/small-cpu" "$work/weights.safetensors" &&
    tensors batch "$work/batch.safetensors" "${small_scenes[@]}" || return 1
  local name settings
  for name in cpu-fp32 device-fp32 cpu-bf16 device-bf16; do
    settings=(dist.device=cpu)
    [[ $name != device-* ]] || settings=("dist.device=$device")
    [[ $name != *-bf16 ]] || settings+=(training.use_amp=true)
    quiet "step-$name" "$duoflow" step --config "$config" --weights "$work/weights.safetensors" --batch "$work/batch.safetensors" \
      --out "$work/$name.safetensors" "${small[@]}" "${settings[@]}" || return 1
  done
  echo " fp32, CPU against $device (allowed: 1e-3)"
  tensors compare "$work/device-fp32.safetensors" "$work/cpu-fp32.safetensors" 1e-3 || return 1
  echo " bf16, CPU against $device (allowed: 2e-1)"
  tensors compare "$work/device-bf16.safetensors" "$work/cpu-bf16.safetensors" 2e-1 || return 1
  echo " for scale: bf16 against fp32 on the CPU"
  tensors compare "$work/cpu-bf16.safetensors" "$work/cpu-fp32.safetensors" | tail -n 1
}

one_rank() {  # on CUDA one rank is a real NCCL group; same seed and data as small-cpu
  small_run && run_small_one || return 1
  echo " against the same training on the CPU (allowed: 1e-2)"
  report losses "$work/small-one" "$work/small-cpu" 1e-2
}
run_small_one() {
  [[ -e $work/small-one/checkpoints/latest ]] ||
    run_joint small-one small-pairs small-stage1 "${small[@]}" training.train_steps=3 training.batch_size_per_gpu=2 dist.device=$device
}

two_ranks() {  # the same global batch as one_rank
  local mpirun=$here/mpirun  # the bundle's
  [[ -x $mpirun ]] || mpirun=$(command -v mpirun) || { echo "  no mpirun, neither in a bundle nor installed"; return 1; }
  small_run && run_small_one || return 1
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 DUOFLOW_CUDA_TRANSPORT=staged
  launcher=("$mpirun" --oversubscribe --bind-to none -n 2)
  if run_joint small-two small-pairs small-stage1 "${small[@]}" training.train_steps=3 training.global_batch_size=2 dist.device=$device; then
    echo " against one rank (allowed: 1e-3)"
    report losses "$work/small-two" "$work/small-one" 1e-3
  else
    false
  fi
  local code=$?
  launcher=()
  unset DUOFLOW_CUDA_TRANSPORT
  return $code
}

timed_pairs() { make_pairs timed "${timed_scenes[@]}" ${timed[@]+"${timed[@]}"}; }

# run_timed NAME BATCH RECOMPUTE OVERRIDES..: the run NAME-BATCH-RECOMPUTE. 0: it is there; 2: it does not fit, which is said
run_timed() {
  local name=$1-$2-$3 batch=$2 recompute=$3
  shift 3
  rm -rf "${work:?}/$name"
  if ! run_joint "$name" timed-pairs timed-stage1 ${timed[@]+"${timed[@]}"} training.train_steps=$((steps + warm_up)) training.print_every=1 \
    training.batch_size_per_gpu="$batch" training.grad_checkpoint_every="$recompute" dist.device=$device "$@"; then
    rm -rf "$work/$name/metrics.jsonl"
    does_not_fit "$work/$name.log" || return 1
    echo "  batch_size_per_gpu=$batch grad_checkpoint_every=$recompute does not fit this memory"
    return 2
  fi
  rm -rf "$work/$name/checkpoints"
}

timed_training() {  # each batch with everything kept for the backward, and with the blocks run again as lvsm_256.yaml says
  [[ $device == cpu ]] || tensors matmul || return 1
  timed_pairs || return 1
  local batch recompute code=0 measured=0
  for batch in $batches; do
    for recompute in 0 1; do
      echo " batch_size_per_gpu=$batch training.grad_checkpoint_every=$recompute"
      run_timed timed "$batch" "$recompute"
      case $? in
        0) if report timing "$work/timed-$batch-$recompute" "$warm_up" "$peak"; then measured=1; else code=1; fi ;;
        2) ;;
        *) code=1 ;;
      esac
    done
  done
  [[ $measured == 1 ]] || { echo "  nothing fits: no step was timed"; return 1; }
  if [[ $device == cuda && $peak == 0 ]]; then echo "  NOT MEASURED: MFU, the peak of this GPU is not known; again with --peak TFLOPS"; code=1; fi
  return $code
}

captured_training() {  # the same runs, recorded once and replayed; their memory has the graph's beside what is eager
  timed_pairs || return 1
  local batch recompute measured=0 code=0
  for batch in $batches; do
    for recompute in 0 1; do
      echo " batch_size_per_gpu=$batch training.grad_checkpoint_every=$recompute"
      if [[ ! -e $work/timed-$batch-$recompute/metrics.jsonl ]]; then
        run_timed timed "$batch" "$recompute"
        case $? in 0) ;; 2) continue ;; *) code=1; continue ;; esac
      fi
      run_timed captured "$batch" "$recompute" training.cuda_graph=true
      case $? in 0) ;; 2) continue ;; *) code=1; continue ;; esac
      if captured_run "$batch-$recompute"; then measured=1; else code=1; fi
      break  # the first that fits
    done
  done
  [[ $measured == 1 ]] || { echo "  no step was captured and timed"; return 1; }
  return $code
}
captured_run() {  # captured_run BATCH-RECOMPUTE: whether it was captured, its time, its losses against those of the run without
  grep -h 'training.cuda_graph:' "$work/captured-$1.log" | sed 's/^/  /'
  if [[ $device == cpu ]]; then
    grep -q 'training.cuda_graph: steps are not captured' "$work/captured-$1.log" || { echo "  a CPU has no graphs, and the run does not say so"; return 1; }
  elif ! grep -qE 'training\.cuda_graph: step [0-9]+ is captured' "$work/captured-$1.log"; then
    echo "  the run does not say that a step is captured: no graph was timed"
    return 1
  fi
  echo "  losses with and without (allowed: 2e-2)"
  report losses "$work/captured-$1" "$work/timed-$1" 2e-2 | tail -n 1 || return 1
  report timing "$work/captured-$1" "$warm_up" "$peak" && report ratio "$work/captured-$1" "$work/timed-$1" "$warm_up"
}

compare() {  # compare LOG SETTINGS..: benchmarks/peer/compare.py on the timed or small pairs; its output
  local log=$work/$1.log code
  shift
  DUOFLOW_BINARY=$duoflow limited "$python" "$here/benchmarks/peer/compare.py" --config "$config" --device $device --ranks 1 \
    --attention measured --work "$work/peer" "$@" >"$log" 2>&1
  code=$?
  cut -c1-600 "$log" | sed 's/^/  /'
  return $code
}

peer_comparison() {  # one step of both programs from the same weights on the same batch, agreed before it is timed
  "$python" -c 'import yaml' || { echo "  NOT MEASURED: $python has no PyYAML, and no bundle brings it (launch/bundle.sh packs that of .venv)"; return 1; }
  small_run || return 1
  local one_step=0
  echo " the two are one step: fp32 at a small size"
  compare peer-agreement --agreement --precision fp32 --variants eager --pairs "$work/small-pairs" --stage1 "$work/small-stage1" \
    "${small[@]}" training.batch_size_per_gpu=2 || { one_step=1; echo "  the two are not shown to be one step: what follows is no claim"; }
  timed_pairs || return 1
  local recompute batch=2 counts=(--repeats 3 --steps 10 --warm-up 3)
  [[ $device == cuda ]] || counts=(--repeats 2 --steps 2 --warm-up 1)
  for recompute in 0 1; do
    echo " bf16, $(basename "$config"), batch_size_per_gpu=$batch training.grad_checkpoint_every=$recompute"
    compare "peer-$recompute" --stay --start-limit $((180 * slack)) --variants "$variants" --pairs "$work/timed-pairs" --stage1 "$work/timed-stage1" "${counts[@]}" \
      ${timed[@]+"${timed[@]}"} training.batch_size_per_gpu=$batch training.grad_checkpoint_every=$recompute training.warmup=0 &&
      { echo "  claim: PyTorch's time / duoflow's: see the table (aim: at least 1.2 of eager, 1.05 of compile)"; return $one_step; }
    does_not_fit "$work/peer-$recompute.log" || break
    echo "  it does not fit this memory"
  done
  echo "  NOT MEASURED (or not all of it): what is missing is said above"
  return 1
}

profiled_training() {
  timed_pairs || return 1
  local batch=${batches%% *} recompute
  for recompute in 0 1; do
    echo " batch_size_per_gpu=$batch training.grad_checkpoint_every=$recompute"
    run_timed profiled "$batch" "$recompute" --profile 10 training.train_steps=16
    case $? in
      0) report profile "$work/profiled-$batch-$recompute"; return ;;
      2) ;;
      *) return 1 ;;
    esac
  done
  echo "  NOT MEASURED: nothing fits"
  return 1
}

everything() {
  [[ $device == cuda ]] || echo "DRY RUN ON THE CPU: tiny sizes, no GPU, times without meaning"
  part machine 20 "machine" machine
  part tests 90 "CUDA tests" cuda_tests
  part agreement 90 "agreement of duoflow step, CPU and $device" agreement
  part training 150 "timed joint training, $(basename "$config")" timed_training
  part peer 330 "against the same step in PyTorch ($variants)" peer_comparison
  part profile 50 "profile of the step" profiled_training
  part kernels 60 "CUDA kernels and attention backends" kernels
  part graph 60 "the step as a CUDA graph: training.cuda_graph=true" captured_training
  part one-rank 30 "one rank, $device" one_rank
  part two-ranks 50 "two ranks on one $device, staged through host memory" two_ranks
  say "${#failed[@]} part(s) failed or were not measured${failed[*]:+: }$(IFS=';'; echo "${failed[*]-}")"
  [[ ${#failed[@]} -eq 0 ]]
}
everything 2>&1 | tee "$results"
exit "${PIPESTATUS[0]}"
