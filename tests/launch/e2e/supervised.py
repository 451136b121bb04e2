"""Runs under launch/run.sh: starts the supervisor, finds the ranks below it, and reads its restarts.log."""

import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

from common import ENVIRONMENT, PROGRAM, SOURCE, Outcome, command_line

SUPERVISOR = SOURCE / "launch" / "run.sh"


def is_alive(pid):
    """Zombies are not."""
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def rank_of(pid):
    entries = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(int(entry.split(b"=")[1]) for entry in entries if entry.startswith(b"OMPI_COMM_WORLD_RANK="))


def descendants(pid):
    try:
        children = [int(word) for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [other for child in children for other in descendants(child)]


def restarts(run):
    """Ends of attempts in RUN/restarts.log: (exit code, step, decision)."""
    log = (run / "restarts.log").read_text()
    return [(int(code), int(step), decision)
            for code, step, decision in re.findall(r"^\S+ \S+  attempt \d+  exit code (\d+)  step (\d+)  (.*)$", log, re.MULTILINE)]


class Supervised:
    """run.sh with a command of its own, in a session of its own. Leaving the `with` block ends it and all below it."""

    def __init__(self, command, *options):
        self.command = [str(word) for word in (SUPERVISOR, *options, "--", *command)]
        self.log = tempfile.TemporaryFile(mode="w+", errors="replace")
        self.scratch = tempfile.TemporaryDirectory(prefix="duoflow-run-", ignore_cleanup_errors=True)  # what killed programs leave behind
        self.process = subprocess.Popen(self.command, env=ENVIRONMENT | {"TMPDIR": self.scratch.name}, stdout=self.log, stderr=self.log,
                                        start_new_session=True)

    @classmethod
    def training(cls, ranks, arguments, *options):
        return cls(command_line(ranks, arguments), *options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in [self.process.pid, *self.below()] if self.process.poll() is None else []:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        self.log.close()
        self.scratch.cleanup()

    def below(self):
        return descendants(self.process.pid)

    def ranks(self):
        """Process numbers by rank, of those that run the program by now."""
        found = {}
        for pid in self.below():
            try:
                if os.path.samefile(f"/proc/{pid}/exe", PROGRAM):
                    found[rank_of(pid)] = pid
            except (FileNotFoundError, ProcessLookupError, StopIteration):
                pass  # gone, or of another kind, by now
        return found

    def signal(self, number):
        os.kill(self.process.pid, number)

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def outcome(self, timeout=150):
        code = self.process.wait(timeout)
        return Outcome(self.command, code, "", self.said())

    def wait_until(self, condition, what, timeout=150):
        deadline = time.monotonic() + timeout
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{what} was not seen\n{Outcome(self.command, self.process.poll(), '', self.said())}")
            time.sleep(0.005)
