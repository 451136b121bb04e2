#!/usr/bin/env bash
# What a machine with one GPU can show: agreement of CPU and GPU, the CUDA kernels one by one, NCCL at one rank, two ranks on one GPU,
# and a timed joint training at configs/lvsm_256.yaml, launched kernel by kernel and as a CUDA graph. Runs from the folder that
# launch/bundle.sh packs (or from the repository after a build); needs Python with torch, no packages, no compiler, no network. The
# pictures are path traced (a bundle brings them along), the weights are random: only time is measured.
# Usage: benchmarks/gpu.sh [--cpu] [--steps N] [--batches "N N.."] [--peak TFLOPS] [--work FOLDER] [--results FILE] [--scenes FOLDER]
#   --cpu      dry run of the same path where there is no GPU: the device is the CPU and every size is tiny; its times mean nothing
#   --steps    timed steps after 10 of warm-up (default 30)
#   --batches  samples per step to time, in turn (default "2 4 8"); one that does not fit the memory ends with the message a user gets
#   --peak     bf16 TFLOP/s of the GPU that MFU refers to (default: the data sheet's, by name: A100 312, H100 and H200 989)
#   --work     folder for data and runs (default: a new one under /tmp, removed at the end)
#   --results  file written (default: gpu-results.txt here, gpu-dry-run.txt with --cpu)
#   --scenes   only make the scenes of such a run, in this folder: launch/bundle.sh packs them as benchmarks/scenes, where a run finds
#              them, since the bundle has no Embree to make them with
# About three minutes on a GPU with 16 CPU cores, and the timed training once more for the graph. Exit code 1 when a part failed; the others still run.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command_line="benchmarks/gpu.sh $*"
device=cuda steps=30 batches='2 4 8' peak='' work='' results='' scenes=''
usage() { sed -n '/^# Usage/,/^# About/p' "${BASH_SOURCE[0]}" | sed 's/^# //'; }
while [[ $# -gt 0 ]]; do
  case $1 in
    --cpu) device=cpu; shift ;;
    --steps|--batches|--peak|--work|--results|--scenes)
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
timed=() timed_scenes=(256 256) warm_up=10
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
"$python" -c 'import torch' || { echo "gpu.sh: error: $python has no torch. Install torch 2.11 for it" >&2; exit 2; }
if [[ -z $work ]]; then work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; fi
mkdir -p "$work"
if [[ -z $results ]]; then results=gpu-results.txt; [[ $device == cuda ]] || results=gpu-dry-run.txt; fi
config=$here/configs/lvsm_256.yaml

# ---- parts --------------------------------------------------------------------------------------------------------------
started=$SECONDS
failed=()
say() { printf '\n== [%3d s] %s\n' "$((SECONDS - started))" "$*"; }
part() {  # part NAME FUNCTION: goes on after a failure, which is said
  say "$1"
  if ! "$2"; then failed+=("$1"); echo "  FAILED"; fi
}
quiet() {  # quiet NAME COMMAND..: the output only when it fails or hangs
  local log=$work/$1.log
  shift
  if ! timeout -k 10 300 "$@" >"$log" 2>&1; then
    echo "  failed: $*"
    tail -n 12 "$log" | cut -c1-400 | sed 's/^/    /'
    return 1
  fi
}
report() { "$python" "$here/benchmarks/gpu_report.py" "$@"; }
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
  "$python" -c 'import torch; print("  Python torch", torch.__version__, "CUDA", torch.version.cuda)'
  "$duoflow" doctor | sed 's/^/  /'
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
      timeout -k 10 300 "$program"
      return
    fi
  done
  echo "  no gpu_kernels here: bundle the GPU build"
  return 1
}

agreement() {  # the weights after three steps: the velocity head is zero before, and the editor's gradients with it
  make_pairs small "${small_scenes[@]}" "${small[@]}" &&
    run_joint small-cpu small-pairs small-stage1 "${small[@]}" training.train_steps=3 training.batch_size_per_gpu=2 dist.device=cpu &&
    quiet export "$duoflow" export "$work/small-cpu" "$work/weights.safetensors" &&
    report batch "$work/batch.safetensors" "${small_scenes[@]}" || return 1
  local name settings
  for name in cpu-fp32 device-fp32 cpu-bf16 device-bf16; do
    settings=(dist.device=cpu)
    [[ $name != device-* ]] || settings=(dist.device=$device)
    [[ $name != *-bf16 ]] || settings+=(training.use_amp=true)
    quiet "step-$name" "$duoflow" step --config "$config" --weights "$work/weights.safetensors" --batch "$work/batch.safetensors" \
      --out "$work/$name.safetensors" "${small[@]}" "${settings[@]}" || return 1
  done
  echo " fp32, CPU against $device (allowed: 1e-3)"
  report compare "$work/device-fp32.safetensors" "$work/cpu-fp32.safetensors" 1e-3 || return 1
  echo " bf16, CPU against $device"
  report compare "$work/device-bf16.safetensors" "$work/cpu-bf16.safetensors" || return 1
  echo " for scale: bf16 against fp32 on the CPU"
  report compare "$work/cpu-bf16.safetensors" "$work/cpu-fp32.safetensors" | tail -n 1
}

one_rank() {  # on CUDA one rank is a real NCCL group; same seed and data as small-cpu
  run_joint small-one small-pairs small-stage1 "${small[@]}" training.train_steps=3 training.batch_size_per_gpu=2 dist.device=$device || return 1
  echo " against the same training on the CPU (allowed: 1e-2)"
  report losses "$work/small-one" "$work/small-cpu" 1e-2
}

two_ranks() {  # the same global batch as one_rank
  local mpirun=$here/mpirun  # the bundle's
  [[ -x $mpirun ]] || mpirun=$(command -v mpirun) || { echo "  no mpirun, neither in a bundle nor installed"; return 1; }
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

timed_training() {
  if [[ -z $peak ]]; then
    case $(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null) in
      *H100*|*H200*) peak=989 ;;
      *A100*) peak=312 ;;
      *) peak=0 ;;
    esac
  fi
  report matmul
  make_pairs timed "${timed_scenes[@]}" ${timed[@]+"${timed[@]}"} && time_batches timed
}

time_batches() {  # time_batches NAME OVERRIDES..: the runs NAME-BATCH
  local name=$1 batch code=0
  shift
  for batch in $batches; do
    echo " batch_size_per_gpu=$batch"
    if run_joint "$name-$batch" timed-pairs timed-stage1 ${timed[@]+"${timed[@]}"} training.train_steps=$((steps + warm_up)) training.print_every=1 \
      training.batch_size_per_gpu="$batch" dist.device=$device "$@"; then
      report timing "$work/$name-$batch" "$warm_up" "$peak" || code=1
    elif ! grep -q 'out of memory' "$work/$name-$batch.log"; then
      code=1
    fi
    rm -rf "$work/$name-$batch/checkpoints"
  done
  return $code
}

captured_training() {  # the same runs, recorded once and replayed; their memory has the graph's beside what is eager
  time_batches captured training.cuda_graph=true
  local code=$? batch
  for batch in $batches; do
    echo " batch_size_per_gpu=$batch: what the run said, and its losses against those of the part before"
    grep -h 'training.cuda_graph:' "$work/captured-$batch.log" | sed 's/^/  /' || code=1
    [[ ! -e $work/captured-$batch/metrics.jsonl ]] || report losses "$work/captured-$batch" "$work/timed-$batch" || code=1
  done
  return $code
}

everything() {
  [[ $device == cuda ]] || echo "DRY RUN ON THE CPU: tiny sizes, no GPU, times without meaning"
  part "machine" machine
  part "CUDA tests" cuda_tests
  part "CUDA kernels and attention backends" kernels
  part "agreement of duoflow step, CPU and $device" agreement
  part "one rank, $device" one_rank
  part "two ranks on one $device, staged through host memory" two_ranks
  part "timed joint training, $(basename "$config")" timed_training
  part "the same with training.cuda_graph=true" captured_training
  say "${#failed[@]} part(s) failed${failed[*]:+: }$(IFS=';'; echo "${failed[*]-}")"
  [[ ${#failed[@]} -eq 0 ]]
}
everything 2>&1 | tee "$results"
exit "${PIPESTATUS[0]}"
