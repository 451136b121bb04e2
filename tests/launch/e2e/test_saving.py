"""What a run does when a checkpoint is late, cannot be written, or does not fit; and how it is asked to stop."""

import csv
import json
import subprocess
import unittest

from common import (EndToEndTest, Job, checkpoint, checkpoint_steps, launch, metrics, needs_program, samples, tensors,
                    train_arguments)

RANKS = 2


def setUpModule():
    needs_program()


class SavingTest(EndToEndTest):
    def arguments(self, run, *overrides, steps=12, every=4):
        return train_arguments("joint", run, f"training.train_steps={steps}", f"training.checkpoint_every={every}", *overrides)

    def train(self, name, *overrides, fault=None, code=0, **sizes):
        run = self.folder / name
        return run, launch(RANKS, *self.arguments(run, *overrides, **sizes), code=code,
                           environment={"DUOFLOW_FAULT": fault} if fault else None)

    def test_the_bytes_do_not_depend_on_whether_training_waits(self):
        background, _ = self.train("background")
        waiting, _ = self.train("waiting", "training.checkpoint_async=false")
        for run in (background, waiting):
            self.assertEqual(checkpoint_steps(run), [4, 8, 12])
        for step in (4, 8, 12):
            for path in checkpoint(background, step).glob("*.safetensors"):
                self.assertEqual(path.read_bytes(), (checkpoint(waiting, step) / path.name).read_bytes(), path)

    def test_what_a_checkpoint_cost_is_logged(self):
        _, done = self.train("cost")
        lines = [line for line in done.err.splitlines() if "training held" in line]
        self.assertEqual(len(lines), 3, done)
        for line in lines:
            self.assertRegex(line, r"checkpoint .*step_0000000(04|08|12) \(training held [0-9.]+ ms, on disk after [0-9]+ ms, [0-9.]+ MiB, [0-9]+ MiB/s\)")

    def test_a_disk_that_fails_once_stops_the_run_on_all_ranks_with_the_cause(self):
        for rank in range(RANKS):
            run, failed = self.train(f"stops-{rank}", fault=f"{rank}:3:EIO", code=3)
            self.assertEqual(len(failed.errors), 1, failed)
            for words in ("checkpoint not written", f"rank {rank} on ", "Input/output error"):
                self.assertIn(words, failed.errors[0])
            self.assertEqual(checkpoint_steps(run), [])
            self.assertEqual(list((run / "checkpoints").iterdir()), [], "nothing is left of it")

    def test_or_training_goes_on_without_that_checkpoint(self):
        run, done = self.train("continues", "training.checkpoint_failure=continue", fault="1:3:EROFS")
        self.assertIn("Read-only file system", done.err)
        self.assertIn("training goes on without it", done.err)
        self.assertEqual(checkpoint_steps(run), [8, 12])

    def test_a_full_disk_at_the_last_checkpoint_is_an_error_always(self):
        _, failed = self.train("full", "training.checkpoint_failure=continue", fault="0:0:full:ENOSPC", code=3)
        self.assertIn("No space left on device", failed.errors[0])

    def test_a_slow_disk_holds_back_checkpoints_and_not_steps(self):
        run, done = self.train("drops", "training.checkpoint_busy=drop", "training.keep_last=100", fault="1:0:slow:150", steps=60, every=2)
        self.assertIn("is still being written", done.err)
        self.assertLess(len(checkpoint_steps(run)), 20)
        self.assertEqual(checkpoint_steps(run)[-1], 60)
        waits, _ = self.train("waits", "training.keep_last=100", fault="1:0:slow:20", steps=12, every=2)
        self.assertEqual(checkpoint_steps(waits), [2, 4, 6, 8, 10, 12])
        for name, value in tensors(checkpoint(run, 2), "model").items():
            self.assertEqual(value.tobytes(), tensors(checkpoint(waits, 2), "model")[name].tobytes(), name)

    def disk(self, size):
        """A file system of its own, as small as that."""
        disk = self.folder / f"disk-of-{size}"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"no file system can be mounted here: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", str(disk)], check=True)
        return disk

    def test_a_disk_that_somebody_fills_costs_the_steps_since_the_last_checkpoint(self):
        whole, _ = self.train("whole", steps=20)
        disk = self.disk("8m")
        run, rubbish = disk / "run", disk / "rubbish"
        with Job(RANKS, *self.arguments(run, steps=20)) as job:
            job.wait_until(lambda: 4 in checkpoint_steps(run), "the first checkpoint")
            subprocess.run(["dd", "if=/dev/zero", f"of={rubbish}", "bs=4k"], capture_output=True)  # until there is no room
            failed = job.outcome()
        self.assertIn(failed.code, (1, 3), failed)  # a line of the log or a checkpoint did not fit
        self.assertEqual(len(failed.errors), 1, failed)
        self.assertIn("No space left on device", failed.errors[0])
        kept = checkpoint_steps(run)
        self.assertIn(4, kept)
        rubbish.unlink()
        launch(RANKS, *self.arguments(run, steps=20))
        for name, value in tensors(checkpoint(run, 20), "model").items():
            self.assertEqual(value.tobytes(), tensors(checkpoint(whole, 20), "model")[name].tobytes(), name)
        self.assertEqual([line["step"] for line in metrics(run)], list(range(1, 21)))

    def test_a_disk_too_small_is_found_before_the_first_step(self):
        disk = self.disk("256k")
        failed = launch(RANKS, *self.arguments(disk / "run"), code=3)
        self.assertIn("a checkpoint takes", failed.errors[0])
        self.assertFalse(checkpoint_steps(disk / "run"))
        self.assertNotIn("step 1/", failed.err)

    def test_a_stop_file_ends_the_run_like_the_signal_and_must_be_gone_at_the_next_start(self):
        run, stop = self.folder / "stopped", self.folder / "please-stop"
        with Job(RANKS, *self.arguments(run, f"training.stop_file={stop}", steps=1000000, every=1000000)) as job:
            job.wait_until(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) > 3, "a few steps")
            stop.touch()
            stopped = job.outcome(timeout=30)
        self.assertEqual(stopped.code, 75, stopped)
        self.assertEqual(len(checkpoint_steps(run)), 1)
        refused = launch(RANKS, *self.arguments(run, f"training.stop_file={stop}", steps=1000000), code=2)
        self.assertIn("is there already", refused.errors[0])

    def test_measurements_on_held_out_pairs_change_no_byte_and_the_best_checkpoint_stays(self):
        pairs = samples() / "pairs"
        options = ("training.lr=0.3", "training.keep_last=1", "training.grad_clip_norm=100",
                   "model.transformer.editor.flow_matching.time_sampling=uniform")  # gets worse, so an early one is best
        plain, _ = self.train("unmeasured", *options)
        measured, done = self.train("measured", *options, "training.eval_every=4", f"training.eval_data={pairs}", "training.eval_pairs=6",
                                    "training.keep_best=true")
        for path in checkpoint(plain, 12).glob("*.safetensors"):
            self.assertEqual(path.read_bytes(), (checkpoint(measured, 12) / path.name).read_bytes(), path)
        lines = [json.loads(line) for line in (measured / "evaluation.jsonl").read_text().splitlines()]
        self.assertEqual([(line["step"], line["pairs"]) for line in lines], [(4, 6), (8, 6), (12, 6)])
        best = max(lines, key=lambda line: line["psnr_masked"])["step"]
        self.assertEqual((measured / "checkpoints" / "best").read_text(), f"step_{best:09d}\n")
        self.assertEqual(checkpoint_steps(measured), sorted({best, 12}))
        self.assertEqual(done.err.count("held-out pairs edited"), 3)
        out = self.folder / "of-the-best"
        launch(0, "evaluate", "--checkpoint", measured / "checkpoints" / "best", "--data", pairs, "--out", out, "--rows", 0)
        self.assertEqual(json.loads((out / "settings.json").read_text())["step"], best)
        with open(out / "pairs.csv") as file:
            rows = list(csv.DictReader(file))
        spread = [rows[(2 * i + 1) * len(rows) // 12] for i in range(6)]
        mean = sum(float(row["psnr_masked"]) for row in spread) / 6
        (measured / "checkpoints" / "best").unlink()  # as if killed before the mark: the next start makes it
        launch(RANKS, *self.arguments(measured, *options, "training.eval_every=4", f"training.eval_data={pairs}", "training.eval_pairs=6", "training.keep_best=true"))
        self.assertEqual((measured / "checkpoints" / "best").read_text(), f"step_{best:09d}\n")
        self.assertAlmostEqual(mean, [line["psnr_masked"] for line in lines if line["step"] == best][0], places=3)

    def test_measurements_that_cannot_be_made_are_refused(self):
        for overrides, code, words in ((("training.eval_every=4",), 2, "training.eval_data"),
                                       (("training.eval_every=3", f"training.eval_data={samples() / 'pairs'}", "training.keep_best=true"), 2, "no multiple"),
                                       (("training.eval_every=4", f"training.eval_data={samples() / 'scenes'}"), 3, "scenes")):
            _, refused = self.train("refused-measurement", *overrides, code=code)
            self.assertIn(words, refused.errors[0])

    def test_a_folder_belongs_to_one_run_at_a_time_and_is_free_when_that_ends_however_it_does(self):
        run = self.folder / "locked"
        endless = self.arguments(run, steps=1000000, every=5)
        with Job(RANKS, *endless) as job:
            job.wait_until(lambda: len(checkpoint_steps(run)) > 0, "a checkpoint")
            lines = len(metrics(run))
            refused = launch(RANKS, *endless, code=3)
            self.assertEqual(len(refused.errors), 1, refused)
            self.assertRegex(refused.errors[0], r"locked is being written by process [0-9]+ on ")
            job.wait_until(lambda: len(metrics(run)) > lines + 5, "the first run goes on")
            job.kill()
        last = checkpoint_steps(run)[-1]
        launch(RANKS, *self.arguments(run, steps=last + 1))
        self.assertFalse((run / "writer.lock").exists())

    def test_a_fault_that_is_none_is_refused(self):
        _, refused = self.train("refused", fault="0:x:kill", code=2)
        self.assertIn("DUOFLOW_FAULT", refused.errors[0])


if __name__ == "__main__":
    unittest.main()
