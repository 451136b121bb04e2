#!/usr/bin/env bash
# Packs the program and the shared libraries that a bare machine lacks, so that it runs where only LibTorch 2.11 (Python's
# torch with its CUDA libraries, or an unpacked LibTorch) is installed: no Debian packages, no compiler.
#   launch/bundle.sh [--demo] [--synth] [BUILD_FOLDER]      default: build-gpu if it has the program, else build
# Along go configs/ and benchmarks/gpu.sh, what one GPU can show, with the PyTorch step that it compares with (and PyYAML, which that
# reads the config by) and its scenes: those of a dry run on the CPU, and of a GPU build the large ones and the CUDA tests. With --demo
# the weights in demo/ too.
# Embree and assimp, 54 MiB that only `duoflow synth` opens, are left out: there, install the packages libembree3-3 and libassimp5, or
# pack them here with --synth.
# Makes BUILD_FOLDER/duoflow-bundle.tar.gz and runs what it unpacks to. There: tar xzf duoflow-bundle.tar.gz, then
# duoflow-bundle/duoflow, which finds torch through python3, or in LIBTORCH_DIR.
# duoflow-bundle/mpirun starts several ranks on that one machine; several hosts, or a fabric, need their own Open MPI and a build there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'bundle: error: %s\n' "$*" >&2; exit 1; }

max_mib=60  # of the folder, and so of the archive; not with --synth
demo='' opened=''  # opened: libraries that the program opens by name when it needs them
while [[ ${1:-} == -* ]]; do
  case $1 in
    --demo) demo='demo' ;;
    --synth) opened='libembree3.so.3 libassimp.so.5' ;;
    *) fail "unknown option $1. There are --demo and --synth" ;;
  esac
  shift
done
build=${1:-}
if [[ -z $build ]]; then
  build=build
  if [[ -x build-gpu/duoflow ]]; then build='build-gpu'; fi
fi
[[ -x $build/duoflow ]] || fail "$build has no duoflow. Build it first: launch/setup.sh [--gpu] --build"
torch=$(sed -n 's/^LIBTORCH_DIR:PATH=//p' "$build/CMakeCache.txt")
# The wheel's version.py, or an unpacked LibTorch's build-version; without the +cu130.
torch_version=$({ grep '^__version__' "$torch/version.py" || cat "$torch/build-version"; } 2>/dev/null | grep -oEm1 '[0-9]+(\.[0-9]+)+' | head -n1) ||
  fail "$torch has neither version.py nor build-version. Set up and build again: launch/setup.sh --build"

# The target machine's own, by name.
system_libraries='^(linux-vdso|ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|libutil|libgcc_s|libstdc\+\+)\.so'

loaded_libraries() {  # loaded_libraries PROGRAM: "name path" of each; fails when one is not found
  local loaded missing
  loaded=$(ldd "$1")
  missing=$(sed -nE 's/^\s*(\S+) => not found.*/\1/p' <<<"$loaded")
  [[ -z $missing ]] || fail "$1 needs libraries that are not found: ${missing//$'\n'/ }"
  sed -nE 's/^\s*(\S+) => (.*\S) \(0x.*$/\1 \2/p' <<<"$loaded"
}
is_of_torch() {  # LibTorch's own, or NVIDIA's beside the wheel
  local file folder
  file=$(readlink -f "$1")
  folder=$(readlink -f "$torch")
  [[ $file == "$folder"/lib/* || $file == "${folder%/*}"/nvidia/* ]]
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
bundle=$scratch/duoflow-bundle
quiet() { "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; fail "this failed: $*"; }; }
mkdir -p "$bundle/bin" "$bundle/lib"
install -s "$build/duoflow" "$bundle/bin/duoflow"
programs=(duoflow)
for program in tests/gpu/cuda_test benchmarks/gpu_kernels/gpu_kernels; do
  if [[ -x $build/$program ]]; then
    install -s "$build/$program" "$bundle/bin"
    programs+=("${program##*/}")
  fi
done
# Preloading finds what the program opens by the same rules, with what that loads in turn.
loaded=$(LD_PRELOAD=$opened loaded_libraries "$build/duoflow")
for library in $opened; do
  [[ $loaded == *"$library "* ]] || fail "--synth, but $library is not found. Install the packages libembree3-3 and libassimp5"
done
while read -r name path; do
  if [[ ! $name =~ $system_libraries ]] && ! is_of_torch "$path"; then install -s -m 644 "$path" "$bundle/lib/$name"; fi
done <<<"$loaded"

# Open MPI, for ranks on one host: its plugins for process start, shared memory and TCP, none for fabrics, files or batch systems.
mpi_plugins=$(ompi_info --parsable --path pkglibdir | cut -d: -f3)
compgen -G "$mpi_plugins/mca_*.so" >/dev/null || fail "Open MPI's plugins are not at '$mpi_plugins'. Is ompi_info the one of the MPI that $build was built with?"
mkdir -p "$bundle/lib/openmpi" "$bundle/share/openmpi"
install -s "$(readlink -f "$(command -v mpirun)")" "$bundle/bin/mpirun"
programs+=(mpirun)
for plugin in "$mpi_plugins"/mca_*.so; do
  if [[ ! ${plugin##*/} =~ _(ofi|openib|ucx|psm2?|slurm|flux|jsm|gridengine|monitoring|basic_atomic)\.so && \
    ! ${plugin##*/} =~ ^mca_(io|fs|fbtl|fcoll|sharedfp|memheap|scoll|spml|sshmem|atomic|crs)_ ]]; then
    install -s -m 644 "$plugin" "$bundle/lib/openmpi"
  fi
done
cp "$(ompi_info --parsable --path pkgdatadir | cut -d: -f3)"/help-*.txt "$bundle/share/openmpi"
for file in "$bundle/bin/mpirun" "$bundle"/lib/openmpi/*.so; do
  loaded=$(loaded_libraries "$file")
  while read -r name path; do
    if [[ ! $name =~ $system_libraries && ! -e $bundle/lib/$name ]]; then install -s -m 644 "$path" "$bundle/lib/$name"; fi
  done <<<"$loaded"
done

mkdir -p "$bundle/benchmarks/peer" "$bundle/tests/golden"
cp benchmarks/gpu.sh benchmarks/gpu_report.py benchmarks/gpu_tensors.py "$bundle/benchmarks"
cp benchmarks/peer/*.py "$bundle/benchmarks/peer"
cp tests/golden/twin.py "$bundle/tests/golden"
python=python3
if [[ -x .venv/bin/python ]]; then python=.venv/bin/python; fi
if yaml=$("$python" -c 'import os, yaml; print(os.path.dirname(yaml.__file__))' 2>/dev/null); then
  mkdir -p "$bundle/benchmarks/packages/yaml"
  cp "$yaml"/*.py "$bundle/benchmarks/packages/yaml"  # without its compiled part, which it can do without
  cp "$yaml/../"[Pp]y[Yy][Aa][Mm][Ll]-*.dist-info/licenses/LICENSE "$bundle/benchmarks/packages/yaml" 2>/dev/null ||
    cp "$yaml/../"[Pp]y[Yy][Aa][Mm][Ll]-*.dist-info/LICENSE "$bundle/benchmarks/packages/yaml" 2>/dev/null || true
else
  printf 'bundle: note: %s has no PyYAML (launch/setup.sh --full installs it): benchmarks/gpu.sh compares with PyTorch only where one is\n' "$python"
fi
DUOFLOW=$build/duoflow quiet benchmarks/gpu.sh --cpu --scenes "$bundle/benchmarks/scenes"
if grep -q '^DUOFLOW_CUDA:BOOL=ON' "$build/CMakeCache.txt"; then
  DUOFLOW=$build/duoflow quiet benchmarks/gpu.sh --scenes "$bundle/benchmarks/scenes"
fi
cp -r configs "$bundle/configs"
if [[ -n $demo ]]; then
  compgen -G 'demo/*.safetensors' >/dev/null || fail "--demo, but demo/ has no .safetensors file. Leave --demo out"
  mkdir "$bundle/demo"
  cp demo/*.safetensors "$bundle/demo"
fi

cat >"$bundle/duoflow" <<END
#!/bin/sh
# Runs the program of its name in bin/ with the libraries of this folder and of LibTorch $torch_version, whose C++ interface it was built for.
built_for=$torch_version
END
cat >>"$bundle/duoflow" <<'END'
here=$(dirname "$(readlink -f "$0")") program=$(basename "$0")
if [ -z "$LIBTORCH_DIR" ]; then
  LIBTORCH_DIR=$(python3 -c 'import importlib.util; print(importlib.util.find_spec("torch").submodule_search_locations[0])' 2>/dev/null) || {
    echo "duoflow: python3 has no torch. Install torch $built_for for it, or set LIBTORCH_DIR to a folder with LibTorch's lib/." >&2
    exit 2
  }
fi
found=$({ grep '^__version__' "$LIBTORCH_DIR/version.py" || cat "$LIBTORCH_DIR/build-version"; } 2>/dev/null | grep -oEm1 '[0-9]+(\.[0-9]+)+' | head -n1)
if [ "$found" != "$built_for" ]; then
  echo "duoflow: $LIBTORCH_DIR has LibTorch ${found:-of unknown version}, this program was built for $built_for. Install that, or set LIBTORCH_DIR to one." >&2
  exit 2
fi
path=$here/lib:$LIBTORCH_DIR/lib
for folder in "$LIBTORCH_DIR"/../nvidia/*/lib; do
  [ ! -d "$folder" ] || path=$path:$folder
done
export OMPI_MCA_mca_base_component_path="$here/lib/openmpi" OPAL_PKGDATADIR="$here/share/openmpi" PMIX_MCA_pcompress_base_silence_warning=1
export LD_LIBRARY_PATH="$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$here/bin/$program" "$@"
END
chmod 755 "$bundle/duoflow"
for program in "${programs[@]:1}"; do cp "$bundle/duoflow" "$bundle/$program"; done

archive=$build/duoflow-bundle.tar.gz
tar -C "$scratch" -czf "$archive" duoflow-bundle
archive_mib=$(du -m "$archive" | cut -f1)

# Check what comes out of the archive: it runs in an empty environment, and takes nothing else from this machine.
mkdir "$scratch/check"
tar -C "$scratch/check" -xzf "$archive"
unpacked=$scratch/check/duoflow-bundle
mib=$(du -sm "$unpacked" | cut -f1)
if [[ $mib -gt $max_mib || $archive_mib -gt $max_mib ]]; then
  over="the folder takes $mib MiB and $archive $archive_mib, more than $max_mib"
  largest="Its largest files (MiB): $(du -m "$unpacked"/*/* | sort -rn | head -n5 | tr '\t\n' '  ')"
  [[ -n $opened ]] || fail "$over. $largest"
  printf 'bundle: note: %s, since --synth packs Embree and assimp\n' "$over"
fi
version=$(cd / && env -i PATH=/usr/bin:/bin LIBTORCH_DIR="$torch" "$unpacked/duoflow" --version)
if [[ -n $opened ]]; then
  printf 'v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n' >"$scratch/triangle.obj"
  quiet env -C / -i PATH=/usr/bin:/bin LIBTORCH_DIR="$torch" "$unpacked/duoflow" synth --out "$scratch/synth" \
    --meshes "$scratch/triangle.obj" --lights 1 --views 1 --size 8 --spp 1
fi
loaded=$(LD_PRELOAD=$opened LD_LIBRARY_PATH=$unpacked/lib:$torch/lib loaded_libraries "$unpacked/bin/duoflow")
while read -r name path; do
  [[ $name =~ $system_libraries || $path == "$unpacked"/* ]] || is_of_torch "$path" ||
    fail "$name comes from $path, not from the bundle"
done <<<"$loaded"

glibc=$(objdump -T "$unpacked"/bin/* "$unpacked"/lib/*.so* "$unpacked"/lib/openmpi/* | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n1)
libstdcxx=$(objdump -T "$unpacked"/bin/* "$unpacked"/lib/*.so* "$unpacked"/lib/openmpi/* | grep -oE 'GLIBCXX_[0-9.]+' | sort -uV | tail -n1)
printf 'bundle: %s (%d MiB, unpacked %d MiB): version %s, for LibTorch %s, %s, %s or newer\n' \
  "$archive" "$archive_mib" "$mib" "$version" "$torch_version" "$glibc" "$libstdcxx"
