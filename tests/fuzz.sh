#!/usr/bin/env bash
# Looks for input that a reader answers with anything but its own error, by libFuzzer under ASan and UBSan.
#   tests/fuzz.sh [SECONDS_PER_TARGET] [TARGET...]     60 s for each; targets are the files of tests/fuzz
# Prints executions, edges of the code that were covered, and findings; exit code 1 when there are any, which lie in
# build-fuzz/findings. The same targets run for a moment in the ordinary suite (fuzz_corpus_test).
# Needs clang 14 and ./launch/setup.sh --full; LibTorch, HDF5, OpenEXR, turbojpeg and libdeflate are not instrumented.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=60
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  seconds=$1
  shift
fi
if ! command -v clang++-14 >/dev/null || [[ ! -e $(clang++-14 -print-resource-dir)/lib/linux/libclang_rt.fuzzer-$(uname -m).a ]]; then
  ./launch/setup.sh --fuzz
fi

build=build-fuzz
cmake --preset fuzz >/dev/null
if (($# > 0)); then targets=("${@/#/fuzz_}"); else targets=(fuzz_targets); fi
cmake --build --preset fuzz --target "${targets[@]}" --parallel "${FUZZ_JOBS:-$(nproc)}"
if (($# == 0)); then
  mapfile -t targets < <(find "$build/tests/fuzz" -maxdepth 1 -type f -executable -name 'fuzz_*' -printf '%f\n' | sort)
fi

export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:allocator_may_return_null=0
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
findings=$build/findings
mkdir -p "$findings" "$build/corpus" "$build/logs"
status=0
printf '%-24s %12s %8s %9s\n' target executions edges findings
for target in "${targets[@]}"; do
  corpus=$build/corpus/$target log=$build/logs/$target
  mkdir -p "$corpus"
  DUOFLOW_FUZZ_SEEDS=$corpus "$build/tests/fuzz/$target"
  found=0
  # Inputs of at most 4 KiB: a claim beyond their worth shows as memory (MiB) or time (s) out of proportion.
  setarch --addr-no-randomize "$build/tests/fuzz/$target" "$corpus" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
    -malloc_limit_mb=512 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$findings/$target-" >"$log" 2>&1 || found=1
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  edges=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -n1)
  printf '%-24s %12s %8s %9s\n' "${target#fuzz_}" "${executions:-?}" "${edges:-?}" "$found"
  if ((found)); then
    status=1
    grep -m3 -E '^==|ERROR|SUMMARY|terminate|what\(\)|runtime error' "$log" | sed 's/^/    /' || true
  fi
done
((status == 0)) || printf 'fuzz: the inputs are in %s, the reports in %s/logs\n' "$findings" "$build"
exit "$status"
