#!/usr/bin/env bash
# Two hosts on one machine: runs COMMAND on host `alpha`, where `mpirun` reaches host `beta` through a link of its own.
#
#   tests/launch/e2e/two_hosts.sh [--slots N] [--rate 1gbit] [--only-check] COMMAND...      (as root; N ranks a host, default 2)
#
# Hosts are network and host-name namespaces joined by a veth pair; --rate shapes both its ends (tc tbf). They share
# the file system and the cores. Nothing has a name outside: the namespaces, and every process in them, end with this
# script, however it ends, so there is nothing stale to clean up. Exit code: COMMAND's; 77: hosts cannot be made here,
# with the reason. The variables for mpirun are set by enter_hosts below.
set -euo pipefail

cannot() { echo "two_hosts: skipped: $*" >&2; exit 77; }

# Runs inside the new namespaces, as host alpha.
enter_hosts() {
  local slots=$1 rate=$2 beta work=/dev/shm
  shift 2
  mount -t tmpfs none $work  # of this mount namespace only, as the other mounts below: gone with it
  hostname alpha
  ip link set lo up
  coproc BETA { exec unshare --net --uts sh -c 'echo ready; exec sleep infinity'; }
  beta=$BETA_PID
  read -r -u "${BETA[0]}"  # from here on it has its own namespaces
  on_beta() { nsenter --target "$beta" --net --uts "$@"; }
  on_beta hostname beta
  ip link add link0 type veth peer name link0 netns "$beta"
  ip addr add 10.77.0.1/24 dev link0
  on_beta ip addr add 10.77.0.2/24 dev link0
  if [[ -n $rate ]]; then
    # A packet queue of at most 50 ms. The burst holds the largest segment that TCP hands over with its headers, else the
    # kernel cuts every segment into packets of 1500 bytes, which network cards do themselves: three times the CPU time.
    tc qdisc add dev link0 root tbf rate "$rate" burst 128kb latency 50ms
    on_beta tc qdisc add dev link0 root tbf rate "$rate" burst 128kb latency 50ms
  fi
  on_beta ip link set lo up
  on_beta ip link set link0 up
  ip link set link0 up

  printf '127.0.0.1 localhost\n10.77.0.1 alpha\n10.77.0.2 beta\n' > $work/hosts
  mount --bind $work/hosts /etc/hosts
  # Process numbers start at 1 again here, and Open MPI names its files by host and process number.
  export OMPI_MCA_orte_tmpdir_base=$work
  printf 'alpha slots=%s\nbeta slots=%s\n' "$slots" "$slots" > $work/hostfile
  # What mpirun takes for ssh: AGENT HOST COMMAND...
  printf '#!/bin/sh\nshift\nexec nsenter --target %s --net --uts sh -c "$*"\n' "$beta" > $work/agent
  chmod +x $work/agent
  export OMPI_MCA_plm_rsh_agent=$work/agent OMPI_MCA_orte_default_hostfile=$work/hostfile
  export OMPI_MCA_oob_tcp_if_include=link0 OMPI_MCA_btl_tcp_if_include=link0 OMPI_MCA_btl=tcp,self
  local code=0
  "$@" || code=$?
  exit "$code"
}

if [[ ${1:-} == --inside ]]; then
  shift
  enter_hosts "$@"
fi

slots=2 rate="" only_check=no
while [[ ${1:-} == --* ]]; do
  case $1 in
    --slots) slots=$2; shift 2 ;;
    --rate) rate=$2; shift 2 ;;
    --only-check) only_check=yes; shift ;;
    *) echo "two_hosts: unknown option $1" >&2; exit 2 ;;
  esac
done

for tool in ip tc unshare nsenter setpriv; do
  command -v "$tool" >/dev/null || cannot "$tool is missing (Debian: iproute2, util-linux)"
done
new_host=(unshare --mount --net --uts --pid --fork --kill-child --mount-proc)
reason=$("${new_host[@]}" sh -c 'ip link add link0 type veth peer name link1 && mount --bind /etc/hosts /etc/hosts' 2>&1) ||
  cannot "network namespaces cannot be made here (root in a privileged container is needed): $reason"
if [[ -n $rate ]]; then
  reason=$("${new_host[@]}" tc qdisc add dev lo root tbf rate "$rate" burst 128kb latency 50ms 2>&1) ||
    cannot "links cannot be shaped here (tc tbf): $reason"
fi
if [[ $only_check == yes ]]; then exit 0; fi

# Killed with this script, also where no trap can run; and with unshare go the processes of its namespaces.
setpriv --pdeathsig KILL "${new_host[@]}" "$0" --inside "$slots" "$rate" "$@" <&0 &
hosts=$!
# unshare itself ignores SIGTERM while it waits.
trap 'kill -KILL "$hosts" 2>/dev/null || true' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
code=0
wait "$hosts" || code=$?
exit "$code"
