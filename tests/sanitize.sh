#!/usr/bin/env bash
# Builds tests with a sanitizer and runs them; the first report fails a test. No part of launch/test.sh: each kind is a
# build of its own, of 5 to 8 s of processor time a file.
#   tests/sanitize.sh asan [all | TEST...]   memory, leaks and undefined behaviour
#   tests/sanitize.sh tsan [all | TEST...]   data races, in ranks, readers and watchdogs as threads of one process
# Without names: the tests that are known to pass. all: every test that stays within its process. LibTorch, OpenMP and
# MPI are not instrumented; what they do among themselves is in tests/sanitizers, each line with its reason, and nothing
# of ours is. Needs ./launch/setup.sh --full.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind=${1:-}
case $kind in
  asan)
    tests=(data_loader_test data_shard_test data_sets_test data_pictures_test data_cameras_test
      data_environment_map_test data_ingest_test data_h5py_test)
    ;;
  tsan)
    tests=(communicator_test gradient_reducer_test statistics_test sharded_adamw_test tcp_backend_test watchdog_test
      checkpoint_test data_loader_test joint_order_test update_test weighting_split_test)
    ;;
  *)
    printf 'usage: %s asan|tsan [all | TEST...]\n' "$0" >&2
    exit 2
    ;;
esac
shift
if (($# > 0)); then tests=("$@"); fi
if [[ ${tests[*]} == all ]]; then
  targets=(in_process_tests)
  selection=(-L '^in_process$')
else
  targets=("${tests[@]}")
  selection=(-R "^($(IFS='|' && printf '%s' "${tests[*]}"))\$")
fi

# One compute thread: the barriers of OpenMP's library are invisible, and what it shares would look unguarded.
export OMP_NUM_THREADS=1
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:check_initialization_order=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=$PWD/tests/sanitizers/tsan.supp

SECONDS=0
cmake --preset "$kind" -DDUOFLOW_TESTS=ON >/dev/null
cmake --build --preset "$kind" --parallel "$(nproc)" --target "${targets[@]}"
build_s=$SECONDS

SECONDS=0
status=0
# Without randomised addresses: the sanitizers' shadow has a fixed place, which these can take.
setarch --addr-no-randomize ctest --test-dir "build-$kind" --output-on-failure --no-tests=error "${selection[@]}" || status=$?
printf 'sanitize: %s: build %d s, tests %d s, exit code %d\n' "$kind" "$build_s" "$SECONDS" "$status"
exit "$status"
