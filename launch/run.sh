#!/usr/bin/env bash
# Keeps a training alive: starts COMMAND again when it fails, until it is done, is asked to stop or gets nowhere.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/run.sh [options] -- COMMAND...
  launch/run.sh -- mpirun -n 4 build/duoflow train --config F --data DIR --run RUN

What follows COMMAND's exit code:
  0          done, if RUN/log.txt says so too (asked for `train` alone: srun gives 0 for ranks that it could not start)
  2, 3       wrong configuration, bad data, bad checkpoint: ends with the same code, another try would end alike
  126, 127   COMMAND cannot be started: likewise
  75         stopped on request after a checkpoint: see --stopped
  any other  a rank, its host or the launcher died: started again, from the newest checkpoint whatever --resume said
After three restarts in a row without progress it gives up with the last code. Progress: the newest checkpoint or the
last line of metrics.jsonl is at a later step than ever before. RUN/restarts.log gets a line for every start and end.

Signals: SIGUSR2 and SIGTERM ask the ranks for a checkpoint and to end with 75. The launcher gets what it hands on to
them: SIGUSR2 if it is mpirun, SIGTERM if it is torchrun, else (srun) the same signal. A second SIGTERM, and SIGINT, go
to it as they are. After SIGTERM or SIGINT nothing is started again, whatever --stopped says. A terminal that closes ends
nothing. When COMMAND has ended, processes of it that are left on this host are killed; when run.sh is killed, COMMAND
gets SIGTERM.

options:
  --run RUN         the run folder; default: what follows --run in COMMAND
  --stopped HOW     after 75: pass    end with 75 (default)
                              restart  go on
                              requeue  have Slurm queue this job again (scontrol requeue), end with 75; not after as many
                                       times at the same step as there are delays
  --delays S,S,...  seconds before a restart: the first after progress, the others after one, two, ... restarts without;
                    as many restarts without progress as there are delays (default 1,10,60)
END
}

say() { printf 'run: %s\n' "$*" >&2 || true; }
refuse() { printf 'run: error: %s\n' "$*" >&2; exit 2; }

# Runs a helper that a signal must not end: Ctrl-C, timeout(1) and Slurm signal whole groups. One that comes before the
# helper ignores it is why it may begin again.
calm() {
  local status=130
  while [[ $status == 130 || $status == 140 || $status == 143 ]]; do
    status=0
    (trap '' INT TERM USR2; "$@") || status=$?
  done
  return "$status"
}
ask() {  # VARIABLE HELPER...: its one line; $(...) would be a process that can be ended
  calm "${@:2}" >"$scratch/answer" || true
  read -r "${1?}" <"$scratch/answer" || true
}

run="" stopped=pass delays=(1 10 60)
parse_options() {
  while [[ $# -gt 0 && $1 != -- ]]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --run | --stopped | --delays) [[ $# -ge 2 ]] || refuse "$1 is the last word, give it a value" ;;&
      --run) run=$2 ;;
      --stopped) stopped=$2 ;;
      --delays) IFS=, read -r -a delays <<<"$2" ;;
      *) refuse "$1 is not an option (COMMAND comes behind --); launch/run.sh --help lists them" ;;
    esac
    shift 2
  done
  command=("${@:2}")
  [[ ${#command[@]} -gt 0 ]] || refuse "there is no COMMAND; give it behind --, as launch/run.sh --help shows"
  case $stopped in
    pass | restart) ;;
    requeue) [[ -n ${SLURM_JOB_ID:-} ]] || refuse "--stopped requeue outside a Slurm job (SLURM_JOB_ID is not set); leave it out" ;;
    *) refuse "--stopped $stopped, expected pass, restart or requeue" ;;
  esac
  local delay
  for delay in "${delays[@]}"; do
    [[ $delay =~ ^[0-9]+(\.[0-9]+)?$ ]] || refuse "--delays: \"$delay\" is no number of seconds; expected such as 1,10,60"
  done
  find_run "${command[@]}"
}

find_run() {  # WORD...: --run of COMMAND, unless given as an option
  while [[ -z $run && $# -gt 0 ]]; do
    case $1 in
      --run) run=${2:-} ;;
      --run=*) run=${1#--run=} ;;
    esac
    shift
  done
  [[ -n $run ]] || refuse "COMMAND has no --run, so no run folder is known; give --run RUN before --"
}

# --- what the run folder tells ---

newest_checkpoint() {  # its manifest; nothing: none is complete
  local manifest newest=""
  for manifest in "$run"/checkpoints/step_*/manifest.json; do  # sorted: steps have leading zeros
    [[ -e $manifest && $manifest =~ /step_[0-9]+/manifest.json$ ]] && newest=$manifest
  done
  printf '%s' "$newest"
}

# A replaced checkpoint of the same step is another one.
checkpoint_identity() {
  local newest
  newest=$(newest_checkpoint)
  if [[ -n $newest ]]; then stat -c '%n %i %Y' "$newest" 2>/dev/null || true; fi
}

step_reached() {  # 0: none
  local newest
  newest=$(newest_checkpoint)
  {
    echo 0
    if [[ $newest =~ step_0*([0-9]+)/manifest.json$ ]]; then echo "${BASH_REMATCH[1]}"; fi
    # Two lines: a killed writer may leave the last one unfinished.
    tail -n 2 "$run/metrics.jsonl" 2>/dev/null | grep -aoE '"step": ?[0-9]+' | grep -oE '[0-9]+' || true
  } | sort -n | tail -n 1
}

# What `train` says at its end. srun is known to end with 0 when a node could not start its ranks.
times_finished() { grep -ac ' info: finished: ' "$run/log.txt" 2>/dev/null || true; }

append_line() { mkdir -p "$run" && printf '%s  attempt %d  %s\n' "$(date '+%F %T')" "$attempt" "$*" >>"$run/restarts.log"; }
log() { calm append_line "$@" 2>/dev/null || say "cannot write to $run/restarts.log"; }

# --- one attempt ---

scratch=$(mktemp -d --tmpdir duoflow-run-XXXXXX)
trap 'trap "" INT TERM USR2; rm -rf "$scratch"' EXIT

stop=""      # the stop signal that came
launcher=""  # the process that gets it
interrupted=no
on_signal() {
  interrupted=yes
  local again=$stop
  if [[ $stop != TERM && $stop != INT ]]; then stop=$1; fi
  if [[ $1 == INT || $again == TERM ]]; then forward "$1"; else request "$1"; fi
}
forward() { if [[ -n $launcher ]]; then kill -s "$1" "$launcher" 2>/dev/null || true; fi; }
request() {  # SIGNAL: as the one that this launcher hands on; mpirun kills the ranks by SIGTERM, torchrun dies of SIGUSR2
  case "${command[0]##*/} ${command[*]:1:2}" in
    mpirun\ * | mpiexec\ * | orterun\ *) forward USR2 ;;
    torchrun\ * | *" -m torch.distributed.run"*) forward TERM ;;
    *) forward "$1" ;;
  esac
}
trap 'on_signal USR2' USR2
trap 'on_signal TERM' TERM
trap 'on_signal INT' INT
trap '' HUP PIPE  # a terminal or a reader of this output that goes away

wait_for() {  # PID: `code` is its exit code, whatever signals come meanwhile
  while :; do
    interrupted=no code=0
    wait "$1" 2>/dev/null || code=$?  # bash would say how it was killed
    [[ $interrupted == yes ]] || return 0
  done
}

# Copies of the launcher's streams: to a terminal that may go away, and the last lines to $scratch/words. They end with
# the last process that writes, so no signal may end them before (Ctrl-C and timeout(1) signal the whole group).
start_relays() {
  calm rm -f "$scratch"/*
  calm mkfifo "$scratch/out" "$scratch/err" "$scratch/end"
  relays=()
  (trap '' INT TERM USR2; exec tee -p <"$scratch/out") & relays+=($!)
  (trap '' INT TERM USR2; exec tee -p "$scratch/end" <"$scratch/err" >&2) & relays+=($!)
  (trap '' INT TERM USR2; exec tail -n 50 <"$scratch/end" >"$scratch/words") & relays+=($!)
}

# Ranks whose peer died cannot act on SIGTERM: Open MPI 4 gives them two seconds after it unless told otherwise.
export OMPI_MCA_odls_base_sigkill_timeout=${OMPI_MCA_odls_base_sigkill_timeout:-0}
tie=()  # ends the launcher when this shell is killed, where setpriv can
if setpriv --pdeathsig keep true 2>/dev/null; then tie=(setpriv --pdeathsig TERM); fi

# A session of its own: the terminal's hangup and Ctrl-C do not reach it but through here. Its processes are known by
# the mark in their environment, whatever sessions they make.
start_launcher() {
  mark="DUOFLOW_ATTEMPT=$$-$attempt-$RANDOM"
  (
    trap - HUP PIPE INT QUIT  # bash lets what runs in the background ignore the last two
    exec setsid env "$mark" "${tie[@]}" "${command[@]}" </dev/null >"$scratch/out" 2>"$scratch/err"
  ) &
  launcher=$!
  if [[ -n $stop ]]; then request "$stop"; fi  # came while there was none
}

leftovers() {  # process numbers
  { grep -lzsxF "$mark" /proc/[0-9]*/environ || true; } | cut -d / -f 3 | tr '\n' ' '
}

still_running() {  # PID...: those with a thread that has not ended, each once
  local pid
  local -A known=()
  for pid in "$@"; do
    [[ -z ${known[$pid]:-} ]] || continue
    known[$pid]=yes
    if grep -qsE '^State:[[:space:]]+[^ZX]' "/proc/$pid"/task/*/status; then printf '%s ' "$pid"; fi
  done
  echo
}

# mpirun does not wait for the ranks that it has killed: they get two seconds. Three looks in a row must find none, since
# a process has no environment for the moment in which it becomes another program.
end_leftovers() {
  local pids seen="" none=0
  for _ in {1..20}; do
    ask pids leftovers
    none=$((none + 1))
    if [[ -n $pids ]]; then none=0 seen="$seen $pids"; fi
    [[ $none -lt 3 ]] || return 0
    calm sleep 0.1 || true
  done
  # shellcheck disable=SC2086  # one word per process, here and below
  ask pids still_running $seen
  [[ -n $pids ]] || return 0
  # shellcheck disable=SC2086
  kill -s KILL $pids 2>/dev/null || true
  log "killed what was left of it on this host: $pids"
  await_end "$pids"
}

# A killed process ends when the kernel has freed what it holds: GPU memory and ports that the next attempt needs.
await_end() {  # PIDS
  local pids=$1
  for _ in {1..300}; do
    # shellcheck disable=SC2086
    ask pids still_running $pids
    [[ -n $pids ]] || return 0
    calm sleep 0.1 || true
  done
  log "still there 30 s after SIGKILL (a disk or GPU that does not answer?): $pids"
  say "warning: still there 30 s after SIGKILL (a disk or GPU that does not answer?): $pids"
}

end_relays() {
  local relay
  for _ in {1..20}; do
    kill -0 "${relays[@]}" 2>/dev/null || break
    calm sleep 0.05 || true
  done
  for relay in "${relays[@]}"; do kill -s KILL "$relay" 2>/dev/null || true; done
}

last_error() {  # the program's own words, else the launcher's, else the last line
  {
    grep -a '^duoflow: ' "$scratch/words" || grep -aiE 'error|signal|killed|fatal' "$scratch/words" ||
      grep -av '^[- ]*$' "$scratch/words" || echo "none"
  } 2>/dev/null | tail -n 1 | cut -c 1-400
}

run_once() {  # sets code
  local finished now
  ask finished times_finished
  log "started${SLURM_JOB_ID:+ in job $SLURM_JOB_ID}: ${command[*]}"
  start_relays
  start_launcher
  wait_for "$launcher"
  launcher=""
  end_leftovers
  end_relays
  unconfirmed=no
  ask now times_finished
  if [[ $code -eq 0 && " ${command[*]} " == *" train "* && $now == "$finished" ]]; then unconfirmed=yes; fi
}

# --- what follows ---

finish() {  # EXIT_CODE DECISION
  log "exit code $code  step $reached  $2"
  say "$2 (exit code $code, step $reached)"
  exit "$1"
}

go_on() {  # HOW: starts again, unless restarts have been in vain
  local error="" delay
  if [[ $code -ne 75 ]]; then ask error last_error && error="; last error: $error"; fi
  if [[ $idle -ge ${#delays[@]} ]]; then
    log "exit code $code  step $reached  given up$error"
    say "error: $idle restarts in a row made no progress (still at step $reached; exit code $code$error);" \
      "remove the cause ($run/log.txt and $run/restarts.log have the whole story), then give the same command again"
    exit "$((code > 0 ? code : 1))"
  fi
  delay=${delays[idle]}
  log "exit code $code  step $reached  $1 in $delay s$error"
  say "$1 in $delay s (exit code $code, step $reached$error)"
  resume_from_newest
  pause "$delay"
}

resume_from_newest() {  # once a checkpoint of ours is there: until then --resume means what it meant
  local word identity
  ask identity checkpoint_identity
  [[ $identity != "$found_at_start" ]] || return 0
  for ((word = 0; word < ${#command[@]}; ++word)); do
    case ${command[word]} in
      --resume) if [[ $((word + 1)) -lt ${#command[@]} ]]; then command[word + 1]=auto; fi ;;
      --resume=*) command[word]=--resume=auto ;;
    esac
  done
}

pause() {
  sleep "$1" &
  local sleeper=$!
  if [[ -z $stop ]]; then wait "$sleeper" || true; fi
  kill "$sleeper" 2>/dev/null || true
}

after_stop() {
  case $stopped in
    pass) finish 75 "stopped on request; the same command goes on" ;;
    restart) stop="" && go_on "stopped on request, going on" ;;
    requeue)
      local before
      ask before queued_again_at "$reached"
      if [[ ${before:-0} -ge ${#delays[@]} ]]; then
        finish 75 "not queued again: $before times it was, at this step; give it a longer time limit, or find out in $run/log.txt what keeps it"
      fi
      log "exit code $code  step $reached  stopped on request; queued again: job $SLURM_JOB_ID"
      calm scontrol requeue "$SLURM_JOB_ID" ||
        say "error: Slurm does not queue job $SLURM_JOB_ID again (see above; sbatch --requeue allows it);" \
          "submit the same job script again, it goes on"
      exit 75
      ;;
  esac
}

queued_again_at() { grep -ac "  step $1  stopped on request; queued again: " "$run/restarts.log" 2>/dev/null || true; }  # STEP

count_progress() {  # sets reached and idle, the restarts in a row without progress
  ask reached step_reached
  reached=${reached:-0}
  if [[ -z $furthest ]]; then  # the first attempt may have been told to begin at an earlier step
    furthest=$reached
  elif [[ $reached -gt $furthest ]]; then
    furthest=$reached idle=0
  else
    idle=$((idle + 1))
  fi
}

decide() {
  case $stop in
    TERM | INT) finish "$code" "ended by SIG$stop" ;;
    USR2)
      case $code in
        0 | 2 | 3 | 75) ;;
        *) log "exit code $code  not 75, but it was asked to stop: the newest checkpoint stands" && code=75 ;;
      esac
      ;;
  esac
  case $code in
    0) if [[ $unconfirmed == yes ]]; then go_on "no \"finished\" in $run/log.txt: starting again"; else finish 0 "done"; fi ;;
    2) finish 2 "not started again: a wrong configuration or command line stays wrong" ;;
    3) finish 3 "not started again: data or checkpoints are bad" ;;
    126 | 127) finish "$code" "not started again: ${command[0]} cannot be started" ;;
    75) after_stop ;;
    *) go_on "starting again" ;;
  esac
}

parse_options "$@"
found_at_start="" attempt=0 idle=0 code=0 unconfirmed=no reached=0 furthest=""
ask found_at_start checkpoint_identity
while :; do
  if [[ -z $stop ]]; then
    attempt=$((attempt + 1))
    run_once
    count_progress
  elif [[ $stop == USR2 ]]; then  # between two attempts: the newest checkpoint stands
    code=75
  else
    code=143
    if [[ $stop == INT ]]; then code=130; fi
  fi
  decide
done
