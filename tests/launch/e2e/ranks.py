"""Ranks that no MPI joins, started as torchrun or srun start them: by environment variables alone."""

import os
import socket
import subprocess
import tempfile
import time

from common import ENVIRONMENT, Outcome, command_line


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def plain(rank, ranks, port):
    return {"RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "localhost", "MASTER_PORT": port}


def slurm(rank, ranks, port):
    """One host. The port comes from the job's number, which is taken from `port` here."""
    return {"SLURM_JOB_ID": port, "SLURM_STEP_ID": 0, "SLURM_PROCID": rank, "SLURM_STEP_NUM_TASKS": ranks, "SLURM_NTASKS": ranks,
            "SLURM_LOCALID": rank, "SLURM_STEP_NODELIST": "localhost"}


class Ranks:
    """One process for every (variables, arguments). Leaving the `with` block ends them."""

    def __init__(self, starts):
        self.logs = [tempfile.TemporaryFile(mode="w+", errors="replace") for _ in starts]
        self.commands = [command_line(0, arguments) for _, arguments in starts]
        self.processes = []
        for (variables, _), command, log in zip(starts, self.commands, self.logs, strict=True):
            environment = ENVIRONMENT | {name: str(value) for name, value in variables.items()}
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for log in self.logs:
            log.close()

    def outcomes(self, timeout=150):
        """How every rank ended, by rank; AssertionError when one is still there."""
        end = time.monotonic() + timeout
        for process in self.processes:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
        left = [rank for rank, process in enumerate(self.processes) if process.poll() is None]
        found = []
        for command, process, log in zip(self.commands, self.processes, self.logs, strict=True):
            log.seek(0)
            found.append(Outcome(command, process.returncode, "", log.read()))
        if left:
            raise AssertionError(f"ranks {left} have not ended\n" + "\n".join(map(str, found)))
        return found

    def wait_until(self, condition, what, timeout=150):
        deadline = time.monotonic() + timeout
        while not condition():
            if any(process.poll() is not None for process in self.processes) or time.monotonic() > deadline:
                for process in self.processes:
                    process.kill()
                raise AssertionError(f"{what} was not seen\n" + "\n".join(map(str, self.outcomes())))
            time.sleep(0.005)

    def signal(self, rank, number):
        os.kill(self.processes[rank].pid, number)


def launch_by(kind, ranks, arguments, code=0, timeout=150):
    """Runs as many ranks to the end; AssertionError unless every exit code is `code` (None: any)."""
    port = free_port()
    with Ranks([(kind(rank, ranks, port), arguments) for rank in range(ranks)]) as job:
        outcomes = job.outcomes(timeout)
    if code is not None and any(outcome.code != code for outcome in outcomes):
        raise AssertionError(f"exit code {code} expected\n" + "\n".join(map(str, outcomes)))
    return outcomes


def errors(outcomes):
    return [line for outcome in outcomes for line in outcome.errors]
