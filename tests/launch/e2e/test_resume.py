"""A run that was killed or stopped and went on is the run that was never interrupted, bit for bit."""

import os
import re
import shutil
import signal
import unittest

from common import (MEASURED, EndToEndTest, Job, checkpoint, checkpoint_steps, launch, metrics, needs_program, samples, tensors,
                    train_arguments)

RANKS = 2
FLOW = "model.transformer.editor.flow_matching."
# Weights with a memory and an average (their state is in the checkpoint) and every checkpoint kept, to compare at any of them.
OPTIONS = (f"{FLOW}weight_ema=0.9", f"{FLOW}weight_clamp=[0.001, 10]", "training.ema_decay=0.9", "training.checkpoint_every=5", "training.keep_last=1000")
ENDLESS = 1000000


def setUpModule():
    needs_program()


def arguments(run, steps, *overrides):
    return train_arguments("joint", run, *OPTIONS, f"training.train_steps={steps}", *overrides)


class ResumeTest(EndToEndTest):
    def assert_same_run(self, run, steps, *overrides):
        """Against a run of that many steps in one go: tensors to the byte, log lines but for what is measured."""
        whole = self.folder / f"{run.name}-whole"
        launch(RANKS, *arguments(whole, steps, *overrides))
        for part in ("model", "state"):
            ours, theirs = tensors(checkpoint(run, steps), part), tensors(checkpoint(whole, steps), part)
            self.assertEqual(ours.keys(), theirs.keys())
            for name, value in ours.items():
                self.assertEqual((value.dtype, value.shape), (theirs[name].dtype, theirs[name].shape), name)
                self.assertEqual(value.tobytes(), theirs[name].tobytes(), name)
        for prefix in ("weighting.", "ema."):
            self.assertTrue(any(name.startswith(prefix) for name in tensors(checkpoint(run, steps), "state")), prefix)

        def comparable(folder):
            return [{key: value for key, value in line.items() if key not in MEASURED} for line in metrics(folder)]

        self.assertEqual([line["step"] for line in metrics(run)], list(range(1, steps + 1)))
        self.assertEqual(comparable(run), comparable(whole))

    def test_killed_run_goes_on_from_its_last_checkpoint(self):
        run = self.folder / "killed"
        with Job(RANKS, *arguments(run, ENDLESS)) as job:
            job.wait_until(lambda: len(checkpoint_steps(run)) > 0, "a checkpoint")
            job.wait_until(lambda: len(job.ranks()) == RANKS, "every rank")
            job.kill()
        last = checkpoint_steps(run)[-1]
        resumed = launch(RANKS, *arguments(run, last + 5))
        self.assertIn(f"resumed from {checkpoint(run, last)} (step {last})", resumed.err)
        self.assertEqual(resumed.err.count(f"training.train_steps: {ENDLESS} -> {last + 5}"), 1, resumed)
        self.assertEqual(list((run / "checkpoints").glob("*.tmp-*")), [], "what the kill left behind is removed")
        self.assert_same_run(run, last + 5)

    def test_stopped_run_writes_a_checkpoint_and_goes_on(self):
        run = self.folder / "stopped"
        with Job(RANKS, *arguments(run, ENDLESS, "training.checkpoint_every=1000000")) as job:
            job.wait_until(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) > 3, "a few steps")
            os.kill(job.process.pid, signal.SIGUSR2)
            stopped = job.outcome()
        self.assertEqual(stopped.code, 75, stopped)
        self.assertIn("stopped on request", stopped.err)
        self.assertEqual(stopped.errors, [], stopped)
        (last,) = checkpoint_steps(run)
        self.assertEqual(metrics(run)[-1]["step"], last)
        launch(RANKS, *arguments(run, last + 5))
        self.assert_same_run(run, last + 5)

    def test_what_the_last_step_measured_at_v_pred_is_in_its_checkpoint(self):
        balanced = (f"{FLOW}weighting=gradient_balance",)
        run = self.folder / "balanced"
        launch(RANKS, *arguments(run, 7, *balanced))
        launch(RANKS, *arguments(run, 12, *balanced))
        self.assert_same_run(run, 12, *balanced)
        weights = [line["velocity_weight"] for line in metrics(run)]
        self.assertEqual(weights[0], 1)
        self.assertGreater(len(set(weights)), 1)

    def test_going_on_from_an_older_step_leaves_the_later_ones_aside(self):
        run = self.folder / "branch"
        launch(RANKS, *arguments(run, 15))
        chosen = checkpoint(run, 5)
        branch = launch(RANKS, *train_arguments("joint", run, *OPTIONS, "training.train_steps=10", resume=chosen))
        self.assertIn("are now in", branch.err)
        self.assertEqual(checkpoint_steps(run), [5, 10])
        self.assertTrue((run / "checkpoints.old-1" / checkpoint(run, 10).name / "manifest.json").exists())
        launch(RANKS, *arguments(run, 15))
        self.assert_same_run(run, 15)

    def test_a_run_goes_on_after_what_it_started_from_is_gone(self):
        run, start = self.folder / "orphan", self.folder / "start"
        shutil.copytree(samples() / "stage1", start)
        launch(RANKS, *arguments(run, 5, f"training.init_from={start}"))
        shutil.rmtree(start)
        resumed = launch(RANKS, *arguments(run, 10, f"training.init_from={start}"))
        self.assertIn("(step 5)", resumed.err)

    def test_online_latents_with_every_part_trainable_go_on_bit_for_bit(self):
        whole, run = self.folder / "online-whole", self.folder / "online"
        online = ("latents=online", "training.freeze_reconstructor_renderer=false")
        for folder, parts in ((whole, (10,)), (run, (5, 10))):
            for steps in parts:
                launch(RANKS, *train_arguments("joint", folder, *OPTIONS, *online, f"training.train_steps={steps}",
                                               data=samples() / "scenes"))
        for part in ("model", "state"):
            ours, theirs = tensors(checkpoint(run), part), tensors(checkpoint(whole), part)
            self.assertEqual({name: value.tobytes() for name, value in ours.items()},
                             {name: value.tobytes() for name, value in theirs.items()})

    def test_another_batch_size_goes_on_behind_the_samples_consumed(self):
        run = self.folder / "batch"
        launch(1, *arguments(run, 5))
        before = metrics(run)[-1]["samples"]
        resumed = launch(1, *arguments(run, 7, "training.global_batch_size=3"))
        self.assertIn("global batch: ", resumed.err)
        self.assertEqual([line["samples"] for line in metrics(run)[-2:]], [before + 3, before + 6])

    def test_a_run_that_began_with_the_plain_objective_keeps_it_where_no_key_says(self):
        run = self.folder / "plain"
        config = self.folder / "silent.yaml"
        config.write_text((samples() / "joint.yaml").read_text().replace("      flow_matching: {weighting: fixed}\n", ""))
        silent = lambda steps, resume="auto": [config if str(word).endswith("joint.yaml") else word
                                               for word in train_arguments("joint", run, f"training.train_steps={steps}", resume=resume)
                                               if FLOW not in str(word)]
        objective = lambda: re.findall(r'(?:weighting|time_sampling): "(\w+)"', (run / "config.yaml").read_text())
        launch(1, *silent(2), f"{FLOW}weighting=fixed", f"{FLOW}time_sampling=uniform")
        self.assertEqual(objective(), ["fixed", "uniform"])
        resumed = launch(1, *silent(4))
        self.assertNotIn(f"changed since the checkpoint: {FLOW}", resumed.err)
        self.assertEqual(objective(), ["fixed", "uniform"])
        launch(1, *silent(2, "never"))
        self.assertEqual(objective(), ["normalized", "early_bias"])

    def test_no_valid_checkpoint_is_an_error_not_a_fresh_start(self):
        run = self.folder / "broken"
        launch(1, *arguments(run, 5))
        manifest = checkpoint(run) / "manifest.json"
        manifest.write_bytes(manifest.read_bytes()[:40])
        refused = launch(1, *arguments(run, 10), code=3)
        self.assertIn("--resume never", refused.err)
        self.assertEqual(manifest.stat().st_size, 40)

    def test_resuming_another_runs_last_step_leaves_a_checkpoint_here(self):
        run, copy = self.folder / "first", self.folder / "second"
        launch(1, *arguments(run, 5))
        launch(1, *train_arguments("joint", copy, *OPTIONS, "training.train_steps=5", resume=run))
        self.assertEqual(checkpoint_steps(copy), [5])

    def test_finished_run_started_again_changes_nothing(self):
        run = self.folder / "finished"
        launch(RANKS, *arguments(run, 5))
        before = (run / "metrics.jsonl").read_bytes(), (checkpoint(run) / "manifest.json").read_bytes()
        launch(RANKS, *arguments(run, 5))
        self.assertEqual(before, ((run / "metrics.jsonl").read_bytes(), (checkpoint(run) / "manifest.json").read_bytes()))


if __name__ == "__main__":
    unittest.main()
