"""A long run holds no more memory than a short one."""

import pathlib
import unittest

from common import EndToEndTest, Job, needs_program, train_arguments

GROWTH = 0.01  # of the resident memory between the two steps: about 3 KiB a step would be seen


def setUpModule():
    needs_program()


def resident_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} shows no VmRSS")


class MemoryTest(EndToEndTest):
    def test_resident_memory_is_flat(self):
        run = self.folder / "run"
        options = ("training.train_steps=1000000", "training.print_every=20", "training.checkpoint_every=100", "training.batch_size_per_gpu=3")

        def last_step():
            text = (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").exists() else ""
            return int(text.splitlines()[-1].split('"step":')[1].split(",")[0]) if text.endswith("\n") else 0

        with Job(2, *train_arguments("joint", run, *options)) as job:
            job.wait_until(lambda: last_step() >= 300, "step 300", timeout=500)
            early = {pid: resident_kib(pid) for pid in job.ranks()}
            job.wait_until(lambda: last_step() >= 1000, "step 1000", timeout=500)
            late = {pid: resident_kib(pid) for pid in job.ranks()}
        self.assertEqual(len(early), 2)
        for pid, kib in early.items():
            self.assertLess(late[pid], (1 + GROWTH) * kib, f"rank process {pid}: {kib} KiB at step 300, {late[pid]} KiB at step 1000")


if __name__ == "__main__":
    unittest.main()
