#!/usr/bin/env bash
# Starts the ranks of a job without MPI, by environment variables alone, as torchrun or srun do:
#
#   tests/dist/start_ranks.sh plain|slurm RANKS PROGRAM [ARGUMENT...]
#
# Exit code: that of the first rank to fail by itself, else of one that was killed, else 0. Ranks are not ended by this
# script: they have to end by themselves.
set -euo pipefail

kind=$1 ranks=$2
shift 2
for ((rank = 0; rank < ranks; ++rank)); do
  case $kind in
    plain) place=(RANK=$rank WORLD_SIZE=$ranks MASTER_ADDR=localhost MASTER_PORT=${port:=$((20000 + RANDOM % 10000))}) ;;
    slurm)
      place=(SLURM_PROCID=$rank SLURM_STEP_NUM_TASKS=$ranks SLURM_NTASKS=$ranks SLURM_LOCALID=$rank SLURM_STEP_ID=0
        SLURM_JOB_ID=${job:=$((RANDOM + 100000))} SLURM_STEP_NODELIST=localhost)
      ;;
    *) echo "start_ranks: unknown kind $kind" >&2; exit 2 ;;
  esac
  env "${place[@]}" "$@" &
done

code=0
for ((rank = 0; rank < ranks; ++rank)); do
  one=0
  wait -n || one=$?
  if ((one != 0 && (code == 0 || (code > 128 && one < 128)))); then code=$one; fi
done
exit "$code"
