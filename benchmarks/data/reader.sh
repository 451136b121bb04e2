#!/usr/bin/env bash
# The tables of benchmarks/results/reader.md, in a few minutes:
#   benchmarks/data/reader.sh [FOLDER]     folder for 2.3 GB of data, made when it is not there (default: build/reader_data)
set -euo pipefail
cd "$(dirname "$0")/../.."
cmake --build build --target reader_benchmark >/dev/null
exec .venv/bin/python -u -B benchmarks/data/reader.py "${1:-build/reader_data}"
