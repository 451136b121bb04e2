"""benchmarks/gpu.sh as far as it goes without a GPU: its dry run, what it says of that which it could not measure, and its count of
floating-point operations."""

import os
import shlex
import subprocess
import sys
import unittest

from common import PROGRAM, SOURCE, EndToEndTest, launch, needs_program

SCRIPT = SOURCE / "benchmarks" / "gpu.sh"
PARTS = ("machine", "CUDA tests", "agreement of duoflow step", "timed joint training", "against the same step in PyTorch", "profile of the step",
         "CUDA kernels", "the step as a CUDA graph", "one rank", "two ranks")
SIZES = ["model.transformer.d=64", "model.transformer.d_head=32", "model.transformer.n_latent_vectors=96", "model.transformer.encoder_n_layer=1",
         "model.transformer.decoder_n_layer=3", "model.transformer.editor.n_layer=2", "model.image_tokenizer.image_size=48",
         "model.env_tokenizer.image_size=32", "training.use_amp=false", "dist.threads=1", "dist.device=cpu"]


def setUpModule():
    needs_program()
    try:
        import torch  # noqa: F401
        import yaml  # noqa: F401
    except ImportError as error:
        raise unittest.SkipTest(f"{error}: launch/setup.sh --full installs Python's torch") from error


class GpuScriptTest(EndToEndTest):
    def run_script(self, *arguments, code, program=PROGRAM, work=None):
        """What it said; the exit code must be `code`."""
        work = work or self.folder / self._testMethodName
        command = [SCRIPT, "--cpu", "--variants", "eager", "--batches", "2", "--work", work, "--results", self.folder / "results.txt", *arguments]
        environment = os.environ | {"DUOFLOW": str(program), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, env=environment)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def program_but(self, cases):
        """duoflow, but for command lines that match one of the shell's `cases`."""
        path = self.folder / f"{self._testMethodName}-duoflow"
        path.write_text(f"#!/bin/sh\ncase \"$*\" in\n{cases}\nesac\nexec {shlex.quote(str(PROGRAM))} \"$@\"\n")
        path.chmod(0o755)
        return path

    def test_every_part_runs_without_a_gpu(self):
        said = self.run_script(code=0)
        headings = [line for line in said.splitlines() if line.startswith("== [")]
        for heading, part in zip(headings[:-1], PARTS, strict=True):
            self.assertIn(part, heading)
        self.assertIn("0 part(s) failed or were not measured", headings[-1])
        self.assertRegex(said, r"PyTorch eager \| [\d.]+ \| [\d.]+ \(")
        self.assertRegex(said, r"attention of PyTorch eager: (flash|matmul) \(cudnn cannot run, flash [\d.]+ ms")
        self.assertRegex(said, r"claim: exposed data, communication and logging [\d.]+ %")
        self.assertEqual(said.count("steps timed: median"), 3)  # with and without recomputation, and where a graph would be
        self.assertIn("training.cuda_graph: steps are not captured", said)

    def test_what_does_not_fit_is_said_and_the_rest_measured(self):
        small = self.program_but("*cuda_graph*) ;;\n*batch_size_per_gpu=2*grad_checkpoint_every=0*) echo CUDA out of memory; exit 1 ;;")
        said = self.run_script("--parts", "training graph", code=0, program=small)
        self.assertIn("batch_size_per_gpu=2 grad_checkpoint_every=0 does not fit this memory", said)
        self.assertIn("over captured-2-1", said)

    def test_a_memory_in_which_nothing_fits_is_a_failure(self):
        none = self.program_but("*training.grad_checkpoint_every*) echo CUDA out of memory; exit 1 ;;")
        said = self.run_script("--parts", "training profile graph", code=1, program=none)
        for line in ("nothing fits: no step was timed", "NOT MEASURED: nothing fits", "no step was captured and timed", "3 part(s) failed"):
            self.assertIn(line, said)

    def test_a_step_that_is_not_duoflows_is_not_compared(self):
        other = self.program_but(f'"step "*) exec {shlex.quote(str(PROGRAM))} "$@" training.lr=2e-3 ;;')
        said = self.run_script("--parts", "peer", code=1, program=other)
        self.assertIn("not the same step", said)
        self.assertIn("1 part(s) failed or were not measured: peer", said)

    def test_a_part_without_time_is_not_measured(self):
        said = self.run_script("--parts", "machine profile", "--limit", "2", code=1)
        self.assertIn("NOT MEASURED: no time is left of --limit 2; again with --parts profile", said)

    def test_a_part_that_is_not_there_is_a_mistake(self):
        self.run_script("--parts", "peers", code=2)

    def function(self, name, *words):
        """(exit code, what it said) of one of the script's functions as it is on a GPU."""
        source = f'eval "$(sed -n "/^{name}()/,/^}}/p" {shlex.quote(str(SCRIPT))})"; report() {{ echo report "$@"; }}'
        command = f"set -uo pipefail; {source}; device=cuda work={shlex.quote(str(self.folder))} warm_up=5 peak=989; {shlex.join([name, *map(str, words)])}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def test_a_graph_counts_only_where_a_step_was_captured(self):
        log = self.folder / "captured-2-0.log"
        log.write_text("warning: training.cuda_graph: the step could not be captured (no reason); the run goes on without, set it to false\n")
        code, said = self.function("captured_run", "2-0")
        self.assertEqual(code, 1, said)
        self.assertIn("no graph was timed", said)
        log.write_text("info: training.cuda_graph: step 4 is captured, it and later ones are replayed; of the host's time\n")
        code, said = self.function("captured_run", "2-0")
        self.assertEqual(code, 0, said)
        self.assertRegex(said, r"report losses .*captured-2-0 .*timed-2-0 2e-2")

    def test_the_share_of_kernels_at_the_memory_bound_is_counted(self):
        log = self.folder / "kernels.log"
        log.write_text("  kernel   ms   MB   GB/s   bound   ATen ms\n  gelu   0.1   100.0   3000   85.2%   0.2\n  norm   0.1   100.0   2500    72.0%   0.2\n")
        self.assertIn("claim: 1 of 2 kernels reach 80 % of the memory bound, the lowest 72.0 %", self.function("kernel_shares", log)[1])

    def test_flops_are_those_that_the_program_counts(self):
        sys.path.insert(0, str(SOURCE / "benchmarks"))
        import gpu_report

        config, folder = SOURCE / "configs" / "lvsm_256.yaml", self.folder
        launch(0, "synth", "--objects", 1, "--lights", 3, "--views", 6, "--spp", 1, "--out", folder / "scenes", "--size", 48, "--env-height", 32)
        launch(0, "train", "--config", config, "--data", folder / "scenes", "--run", folder / "stage1", *SIZES, "objective=reconstruction",
               "training.train_steps=1", "training.batch_size_per_gpu=1", "training.num_target_views=2")
        launch(0, "encode", "--checkpoint", folder / "stage1", "--data", folder / "scenes", "--out", folder / "pairs")
        run, samples = folder / "counted", 6
        launch(0, "train", "--config", config, "--data", folder / "pairs", "--run", run, "--profile", 1, *SIZES, "training.num_target_views=2",
               f"training.init_from={folder / 'stage1'}", "training.train_steps=6", "training.grad_checkpoint_every=0",
               f"training.batch_size_per_gpu={samples}")
        # The CPU's fused attention makes the scores again in its backward.
        flops = gpu_report.flops_per_sample((run / "config.yaml").read_text(), attention_backward=5)
        table = gpu_report.stages(run)
        self.assertGreater(table["sum"][1], 0.5)
        self.assertAlmostEqual(table["sum"][1], 1e-9 * samples * flops, delta=0.0006)


if __name__ == "__main__":
    unittest.main()
