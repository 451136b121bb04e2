#!/usr/bin/env bash
# Sets the machine up, builds everything with warnings as errors and runs the test suite.
#   launch/test.sh [--long] [CTest options]      for example: launch/test.sh -R WeightingTest
# --long adds the tests labelled `long` (soaks). The exit code is CTest's; a run without any test is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

selection=(-LE '^long$')
if [[ ${1:-} == --long ]]; then
  selection=()
  shift
fi

# Several mpirun of one machine at once: each would bind its ranks to the same first cores and spin there while waiting.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1

SECONDS=0
./launch/setup.sh --tests
# The tests with pretrained networks skip, and say so, where these cannot be had.
./launch/setup.sh --perceptual || printf 'test: without the weights of LPIPS: the tests that need them will skip\n'
setup_s=$SECONDS

SECONDS=0
cmake --preset cpu -DDUOFLOW_WERROR=ON -DDUOFLOW_TESTS=ON >/dev/null
cmake --build --preset cpu --parallel "$(nproc)"
build_s=$SECONDS

SECONDS=0
status=0
ctest --test-dir build --output-on-failure --no-tests=error --parallel "$(nproc)" "${selection[@]}" "$@" || status=$?
printf 'test: set-up %d s, build %d s, tests %d s, exit code %d\n' "$setup_s" "$build_s" "$SECONDS" "$status"
exit "$status"
