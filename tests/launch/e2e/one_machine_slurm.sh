#!/usr/bin/env bash
# A Slurm of this machine alone: runs COMMAND where sbatch, srun, scancel and scontrol reach it.
#
#   tests/launch/e2e/one_machine_slurm.sh [--nodes N] [--only-check] COMMAND...     (as root; Debian: slurm-wlm, munge)
#
# munged, slurmctld and a slurmd for every node keep everything in a folder of their own, $SLURM_TEST, which has their
# logs, and are in a process namespace with all jobs: however this script ends, they end with it. The nodes, node1 to
# nodeN (default 1), are host names of this machine and have four cores each, whatever it has. A requeued job starts
# again after 6 s instead of Slurm's 121. Exit code: COMMAND's; 77: no Slurm can be had here, with the reason.
set -euo pipefail

cannot() { echo "one_machine_slurm: skipped: $*" >&2; exit 77; }

free_ports() {  # COUNT
  python3 - "$1" <<'END'
import socket, sys
probes = [socket.socket() for _ in range(int(sys.argv[1]))]
for probe in probes: probe.bind(("", 0))
print(*(probe.getsockname()[1] for probe in probes))
END
}

write_configuration() {  # NODES; into $SLURM_TEST
  local ports number
  read -r -a ports <<<"$(free_ports $((1 + $1)))"
  cat >"$SLURM_TEST/slurm.conf" <<END
ClusterName=one_machine
SlurmctldHost=controller(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$SLURM_TEST/munge/socket,cred_expire=5
StateSaveLocation=$SLURM_TEST/state
SlurmdSpoolDir=$SLURM_TEST/spool/%n
TmpFS=$SLURM_TEST/tmp/%n
SlurmctldPidFile=$SLURM_TEST/slurmctld.pid
SlurmdPidFile=$SLURM_TEST/%n.pid
SlurmctldLogFile=$SLURM_TEST/slurmctld.log
SlurmdLogFile=$SLURM_TEST/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
KillWait=5
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
  printf '127.0.0.1 localhost controller\n' >"$SLURM_TEST/hosts"
  for ((number = 1; number <= $1; ++number)); do
    printf 'NodeName=node%d NodeHostname=node%d NodeAddr=127.0.0.1 Port=%d CPUs=4\n' "$number" "$number" "${ports[number]}" \
      >>"$SLURM_TEST/slurm.conf"
    printf '127.0.0.1 node%d\n' "$number" >>"$SLURM_TEST/hosts"
  done
}

start_munged() {  # runs as the user munge in its own folder
  local own=$SLURM_TEST/munge
  mkdir "$own"
  dd if=/dev/urandom of="$own/key" bs=1024 count=1 status=none
  chmod 400 "$own/key"
  chown -R munge: "$own"
  setpriv --reuid munge --regid munge --clear-groups munged --force --key-file="$own/key" --socket="$own/socket" --pid-file="$own/pid" \
    --log-file="$own/log" --seed-file="$own/seed"
}

on_host() {  # NAME COMMAND...
  # shellcheck disable=SC2016  # for the inner shell
  exec unshare --uts sh -c 'hostname "$0" && exec "$@"' "$@"
}

# Runs inside the new namespaces, as the host `controller`.
enter_slurm() {  # NODES COMMAND...
  local nodes=$1 number
  shift
  export SLURM_CONF=$SLURM_TEST/slurm.conf
  write_configuration "$nodes"
  hostname controller
  mount --bind "$SLURM_TEST/hosts" /etc/hosts  # of this mount namespace only
  mkdir "$SLURM_TEST/state"
  start_munged 2>"$SLURM_TEST/munged.log"
  slurmctld -D >"$SLURM_TEST/slurmctld.out" 2>&1 &
  for ((number = 1; number <= nodes; ++number)); do
    mkdir -p "$SLURM_TEST"/{spool,tmp}/"node$number"
    on_host "node$number" slurmd -D -N "node$number" >"$SLURM_TEST/node$number.out" 2>&1 &
  done
  local try
  for ((try = 0; try < 300; ++try)); do
    if [[ $(sinfo -h -t idle -o %D 2>/dev/null) == "$nodes" ]]; then break; fi
    sleep 0.1
  done
  if [[ $try -eq 300 ]]; then
    tail -n 5 "$SLURM_TEST"/*.log >&2
    cannot "slurmctld and slurmd have not come up within 30 s (their logs are above)"
  fi
  local code=0
  "$@" || code=$?
  exit "$code"
}

if [[ ${1:-} == --inside ]]; then
  shift
  enter_slurm "$@"
fi

nodes=1 only_check=no
while [[ ${1:-} == --* ]]; do
  case $1 in
    --nodes) nodes=$2; shift 2 ;;
    --only-check) only_check=yes; shift ;;
    *) echo "one_machine_slurm: unknown option $1" >&2; exit 2 ;;
  esac
done

for tool in munged slurmctld slurmd sbatch unshare setpriv; do
  command -v "$tool" >/dev/null || cannot "$tool is missing (Debian: slurm-wlm, munge, util-linux)"
done
getent passwd munge >/dev/null || cannot "there is no user munge"
new_machine=(unshare --mount --uts --pid --fork --kill-child --mount-proc)
reason=$("${new_machine[@]}" true 2>&1) || cannot "process namespaces cannot be made here (root is needed): $reason"
if [[ $only_check == yes ]]; then exit 0; fi

SLURM_TEST=$(mktemp -d)
export SLURM_TEST
chmod 755 "$SLURM_TEST"  # munged is another user
# Killed with this script, also where no trap can run; and with unshare go the processes of its namespace.
setpriv --pdeathsig KILL "${new_machine[@]}" "$0" --inside "$nodes" "$@" <&0 &
machine=$!
# unshare itself ignores SIGTERM while it waits.
trap 'kill -KILL "$machine" 2>/dev/null || true; wait "$machine" 2>/dev/null || true; rm -rf "$SLURM_TEST"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
code=0
wait "$machine" || code=$?
exit "$code"
