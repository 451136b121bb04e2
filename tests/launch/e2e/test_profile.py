"""train --profile: stages that sum to the step, counts that agree with the sizes, a trace; train --estimate."""

import json
import re
import unittest

from common import SOURCE, MEASURED, launch, metrics, needs_program, train_arguments
from refusal import RefusalTest

LATENTS, PATCH, WIDTH, SAMPLES, VIEWS, PATCHES = 8, 8, 32, 12, 2, 4  # of common.CONFIG: 16 x 16 pixels are 4 patches


def setUpModule():
    needs_program()


def block_flops(tokens, kept, width):
    """One transformer block over `tokens`, of which the first `kept` leave it; a multiply-add is two."""
    keys_and_values = 2 * tokens * width * 2 * width
    of_each_kept = 2 * width * width + 2 * 2 * tokens * width + 2 * width * width + 2 * 2 * width * 4 * width
    return keys_and_values + kept * of_each_kept


class ProfileTest(RefusalTest):
    def table(self, run):
        """{stage: (ms, GFLOP, MB, operators)}; self.peak in GFLOP/s, self.of_peak and self.mfu in percent, by stage."""
        text = (run / "profile" / "table.txt").read_text()
        self.peak = float(re.search(r"peak: ([\d.]+) GFLOP/s, of one large (?:fp32|bf16) product here", text)[1])
        rows = re.findall(r"^(\S.*?) +([\d.]+) +[\d.]+% +([\d.]+) +[\d.]+ +([\d.]+)% +([\d.]+)% +([\d.]+) +(\d+)$", text, re.MULTILINE)
        self.of_peak, self.mfu = ({row[0]: float(row[column]) for row in rows} for column in (3, 4))
        return {name: (float(ms), float(flops), float(bytes_), int(operators)) for name, ms, flops, _, _, bytes_, operators in rows}

    def operators(self, run, stage):
        """{operator: (calls, MB)}"""
        rows = re.findall(rf"^{stage} +(\S+) +(\d+) +[\d.]+ +([\d.]+)$", (run / "profile" / "operators.txt").read_text(), re.MULTILINE)
        return {name: (int(calls), float(bytes_)) for name, calls, bytes_ in rows}

    def test_the_stages_sum_to_the_step_and_their_counts_are_those_of_the_sizes(self):
        run = self.folder / "profiled"
        launch(2, *train_arguments("joint", run, "training.train_steps=9"), "--profile", 3)
        table = self.table(run)
        parts = {name: row for name, row in table.items() if name != "sum"}
        for stage in ("data", "batch to device", "editor forward", "renderer forward", "losses", "renderer backward", "editor backward",
                      "exposed communication", "optimizer", "other"):
            self.assertIn(stage, parts)
        for column, digit in enumerate((1e-3, 1e-3, 0.1, 0)):  # the last that the table has: each row is rounded to it
            self.assertAlmostEqual(sum(row[column] for row in parts.values()), table["sum"][column], delta=1e-9 + digit / 2 * (len(parts) + 1))
        sequences = SAMPLES // 2 * VIEWS  # two ranks
        rendered = sequences * (block_flops(LATENTS + PATCHES, PATCHES, WIDTH) + 2 * PATCHES * (6 * PATCH**2) * WIDTH
                                + 2 * PATCHES * WIDTH * (3 * PATCH**2))
        self.assertAlmostEqual(parts["renderer forward"][1], 1e-9 * rendered, delta=6e-4)
        light = SAMPLES // 2 * 2 * PATCHES
        blocks = SAMPLES // 2 * (block_flops(LATENTS + 2 * PATCHES, LATENTS + 2 * PATCHES, WIDTH) + block_flops(LATENTS + 2 * PATCHES, LATENTS, WIDTH))
        conditions = SAMPLES // 2 * (2 * 2 * WIDTH**2 + 2 * 2 * WIDTH * 6 * WIDTH) + light * (2 * 9 * PATCH**2 * WIDTH + 2 * 2 * WIDTH**2)
        head = SAMPLES // 2 * LATENTS * 2 * WIDTH**2
        self.assertAlmostEqual(parts["editor forward"][1], 1e-9 * (blocks + conditions + head), delta=6e-4)
        # Our own operators, which no dispatcher sees: fp32 beside the products here, one block of the renderer.
        def operator(name):
            calls, bytes_ = self.operators(run, "renderer forward")[f"duoflow::{name}"]
            return calls, 1e6 * bytes_

        whole, kept = 4 * sequences * (LATENTS + PATCHES) * WIDTH, 4 * sequences * PATCHES * WIDTH
        for name, bytes_ in (("gated_add", 3 * kept), ("add_norm", 4 * kept + 4 * (WIDTH + 2 * sequences * PATCHES))):
            self.assertEqual(operator(name)[0], 1)
            self.assertAlmostEqual(operator(name)[1], bytes_, delta=51)
        calls, bytes_ = operator("split_heads")  # of queries, and of keys and values; the last with the inverse deviations of two heads
        self.assertEqual(calls, 2)
        gains, inverse = 4 * 2 * 16, 4 * 2 * 2 * sequences * (LATENTS + 2 * PATCHES)
        self.assertAlmostEqual(bytes_, 2 * kept + 4 * whole + gains + inverse, delta=51)
        for name, (ms, flops, _, _) in table.items():
            of_peak = 100 * flops / (1e-3 * ms) / self.peak if ms else 0
            self.assertAlmostEqual(self.of_peak[name], of_peak, delta=0.06 + of_peak * (6e-4 / max(ms, 1e-3) + 6e-4 / max(flops, 1e-3)))
            # No block runs again; of attention's backward, by a kernel that keeps no scores, one product in five.
            least = 0.8 * self.of_peak[name] - 0.1 if name.endswith("backward") or name == "sum" else self.of_peak[name]
            self.assertTrue(least <= self.mfu[name] <= self.of_peak[name], f"{name}: {self.mfu[name]} of {self.of_peak[name]}")
        names = {event.get("name") for event in json.loads((run / "profile" / "trace.json").read_text())["traceEvents"]}
        self.assertTrue({"editor forward", "optimizer", "aten::mm", "duoflow::add_norm"} <= names, sorted(map(str, names))[:50])

    def test_what_runs_again_is_not_in_the_mfu(self):
        run = self.folder / "again"
        launch(1, *train_arguments("joint", run, "training.train_steps=9", "training.grad_checkpoint_every=1"), "--profile", 3)
        table = self.table(run)
        self.assertGreater(table["blocks again"][1], 0)
        self.assertGreater(self.of_peak["blocks again"], 0)
        self.assertEqual(self.mfu["blocks again"], 0)
        ms, flops = table["sum"][:2]
        useful = 100 * (flops - table["blocks again"][1]) / (1e-3 * ms) / self.peak
        self.assertLess(self.mfu["sum"], self.of_peak["sum"])
        self.assertAlmostEqual(self.mfu["sum"], useful, delta=0.1 + 0.03 * useful)  # attention's backward makes a little again too

    def test_profiling_changes_no_number_of_the_run(self):
        runs = {}
        for name, options in (("bare", ()), ("watched", ("--profile", 1))):
            launch(1, *train_arguments("joint", self.folder / name, "training.train_steps=7"), *options)
            runs[name] = [{key: value for key, value in line.items() if key not in MEASURED} for line in metrics(self.folder / name)]
        self.assertEqual(runs["bare"], runs["watched"])

    def test_a_run_that_ends_before_its_profile_says_so(self):
        said = launch(1, *train_arguments("joint", self.folder / "short", "training.train_steps=4"), "--profile", 3)
        self.assertIn("the run ended before --profile had the steps that it needs", said.err)

    def test_an_estimate_needs_no_data_and_shares_moments_by_zero(self):
        config = SOURCE / "configs" / "lvsm_256.yaml"

        def moments(*options):
            said = launch(0, "train", "--estimate", "--config", config, *options, "dist.device=cpu").out
            self.assertIn("activations", said)
            return float(re.search(r"^moments, fp32 +([\d.]+)", said, re.MULTILINE)[1])

        whole = moments("--ranks", 8)
        self.assertGreater(whole, 500)
        self.assertAlmostEqual(moments("--ranks", 8, "dist.zero=1"), whole / 8, delta=0.1)

    def test_an_estimate_for_a_gpu_needs_none(self):
        # 3072 latents and 1024 patches: scores of 12 heads would be by far the most of what a block keeps.
        def activations(device):
            said = launch(0, "train", "--estimate", "--config", SOURCE / "configs" / "lvsm_256.yaml", f"dist.device={device}").out
            self.assertIn(f"rank(s) on {device};", said)
            return float(re.search(r"^activations +([\d.]+)", said, re.MULTILINE)[1]), said

        (on_gpu, said), (on_cpu, _) = activations("cuda"), activations("cpu")
        self.assertRegex(said, r"(?m)^ +GPU +host$")
        self.assertLess(on_gpu, on_cpu / 2)

    def test_what_train_cannot_do_without_is_named(self):
        config = SOURCE / "configs" / "quickstart_joint.yaml"
        self.refuse(["train", "--config", config, "--run", self.folder / "none"], 2, "train needs --data", ranks=0)
        self.refuse(["train", "--config", config, "--data", self.folder], 2, "train needs --run", ranks=0)
        self.refuse(["train", "--config", config, "--data", self.folder, "--run", self.folder / "none", "--ranks", 2], 2,
                    "--ranks belongs to --estimate", ranks=0)


if __name__ == "__main__":
    unittest.main()
