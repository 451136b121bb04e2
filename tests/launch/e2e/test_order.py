"""The order of the samples, as runs list what they have trained on: the same for any ranks, threads and resumes."""

import collections
import unittest

import h5py
import numpy as np

from common import checkpoint, checkpoint_steps, launch, metrics, needs_program, samples, tensors, train_arguments
from refusal import RefusalTest

BATCH = 12
BLOCKS = ("data.shuffle=block", "data.shuffle_block_mib=0.01", "data.shuffle_window_mib=0.03")


def setUpModule():
    needs_program()


def listed(run):
    """[position, folder, number, hash] of every line, by position."""
    lines = [line.split("\t") for path in (run / "samples").glob("rank_*.tsv") for line in path.read_text().splitlines()]
    return sorted((int(position), int(folder), int(number), content) for position, folder, number, content in lines)


class OrderTest(RefusalTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.few = cls.folder / "few"  # pairs under three of the five lights: 12, beside 40
        launch(0, "encode", "--checkpoint", samples() / "stage1", "--data", samples() / "scenes", "--out", cls.few, "--lights", "env_00[0-2]")

    def train(self, name, parts, *options, threads=1):
        """A run in parts, each (ranks, up to which step)."""
        run = self.folder / name
        for ranks, steps in parts:
            outcome = launch(ranks, *train_arguments("joint", run, *options, "data.log_samples=true", f"data.threads={threads}",
                                                     f"training.train_steps={steps}"))
        return run, outcome

    def test_one_order_for_ranks_threads_and_resumes(self):
        skip = "data.skip=[5-6, 20-33]"
        cases = {"plain": [], "all": [*BLOCKS, skip]}
        for case, options in cases.items():
            data = ["--data", self.few] if case == "all" else []
            orders = {}
            for name, parts, threads in (("whole", [(1, 4)], 1), ("two", [(2, 4)], 2), ("resumed", [(3, 1), (2, 2), (4, 4)], 4)):
                run, _ = self.train(f"{case}-{name}", parts, *options, *data, threads=threads)
                orders[name] = listed(run)
            skipped = {5, 6, *range(20, 34)} if case == "all" else set()
            positions = [p for p in range(4 * BATCH + len(skipped)) if p not in skipped]
            self.assertEqual([line[0] for line in orders["whole"]], positions)
            self.assertEqual(orders["two"], orders["whole"])
            self.assertEqual(orders["resumed"], orders["whole"])
            self.assertEqual([line["samples"] for line in metrics(run)], [positions[BATCH * step - 1] + 1 for step in range(1, 5)])

    def test_weights_are_shares_and_part_of_what_a_checkpoint_is_of(self):
        arguments = train_arguments("joint", self.folder / "mixed", "data.log_samples=true", "training.train_steps=5",
                                    data=f"{samples() / 'pairs'}=0.75") + ["--data", f"{self.few}=0.25"]
        outcome = launch(2, *arguments)
        self.assertEqual(outcome.err.count("12 samples, 25 % of those drawn"), 1, outcome)
        drawn = listed(self.folder / "mixed")
        self.assertEqual(collections.Counter(line[1] for line in drawn), {0: 45, 1: 15})
        own = [line[2] for line in drawn if line[1] == 1]
        self.assertEqual(sorted(own[:12]), list(range(12)), "each folder has its own epochs")
        for data, more in ((f"{samples() / 'pairs'}=0.5", [f"{self.few}=0.5"]), (samples() / "pairs", [self.few]), (samples() / "pairs", [])):
            other = train_arguments("joint", self.folder / "mixed", "training.train_steps=6", data=data)
            self.refuse([*other, *(word for folder in more for word in ("--data", folder))], 3, "other data", "fingerprint")
        again = train_arguments("joint", self.folder / "mixed", "training.train_steps=6", data=f"{samples() / 'pairs'}=3") + ["--data", f"{self.few}=1"]
        launch(1, *again)
        self.assertEqual(checkpoint_steps(self.folder / "mixed")[-1], 6, "the same shares in other words")

    def test_the_flow_sees_latents_normalised_by_what_is_drawn(self):
        folders, statistics = {samples() / "pairs": 3, self.few: 1}, []
        for folder, weight in folders.items():
            rows, mean, square = 0, 0, 0
            for path in sorted(folder.glob("*.h5")):
                with h5py.File(path) as file:
                    count, m, s = len(file["latents"]), file.attrs["latent_mean"].astype(np.float64), file.attrs["latent_std"].astype(np.float64)
                rows, mean, square = rows + count, mean + count * m, square + count * (s**2 + m**2)
            statistics.append((weight / 4, mean / rows, square / rows))
        mean = sum(share * m for share, m, _ in statistics)
        deviation = np.sqrt(sum(share * square for share, _, square in statistics) - mean**2)
        run = self.folder / "normalised"
        (a, three), (b, one) = folders.items()
        launch(1, *train_arguments("joint", run, "training.train_steps=1", data=f"{a}={three}"), "--data", f"{b}={one}")
        model = tensors(checkpoint(run), "model")
        np.testing.assert_allclose(model["latent_mean"].ravel(), mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(model["latent_std"].ravel(), deviation, rtol=1e-4)

    def test_a_bad_stretch_is_skipped_on_resuming(self):
        run, _ = self.train("spike", [(2, 2)])
        _, outcome = self.train("spike", [(1, 4)], f"data.skip=[{2 * BATCH}-{3 * BATCH - 1}]")
        self.assertIn('data.skip: [] -> ["24-35"]', outcome.err)
        self.assertIn("samples 24 to 35 of the order are skipped", outcome.err)
        self.assertEqual([line[0] for line in listed(run)], [p for p in range(5 * BATCH) if not 2 * BATCH <= p < 3 * BATCH])
        self.assertEqual([line["samples"] for line in metrics(run)], [12, 24, 48, 60])

    def test_each_folder_is_encoded_by_the_model_in_use(self):
        stage1, other = self.folder / "other-stage1", self.folder / "other-pairs"
        launch(0, *train_arguments("reconstruction", stage1, "training.train_steps=1", "training.seed=3"))
        launch(0, "encode", "--checkpoint", stage1, "--data", samples() / "scenes", "--out", other, "--lights", "env_00[0-2]")
        arguments = train_arguments("joint", self.folder / "foreign", "training.train_steps=1") + ["--data", other]
        self.refuse(arguments, 3, "other-pairs", "another reconstructor", "data.allow_other_producer")
        accepted = launch(2, *arguments, "data.allow_other_producer=true")
        self.assertEqual(accepted.err.count("another reconstructor"), 1, accepted)

    def test_refusals(self):
        run, pairs = self.folder / "refused", samples() / "pairs"
        self.refuse(train_arguments("joint", run, "--data", f"{self.few}=2"), 2, "--data", "weight")
        self.refuse(train_arguments("joint", run, "--data", pairs), 2, "twice")
        self.refuse(train_arguments("joint", run, data=f"{pairs}=zero"), 2, "FOLDER=WEIGHT")
        self.refuse(train_arguments("joint", run, "--data", samples() / "scenes"), 3, "scenes", "holds scene shards")
        self.refuse(train_arguments("joint", run, "data.skip=[9-3]"), 2, "data.skip", "backwards")
        self.refuse(train_arguments("joint", run, "data.shuffle=blocks"), 2, "data.shuffle", "block")
        self.refuse(train_arguments("reconstruction", run, "data.exclude_lights=env_*"), 3, "data.exclude_lights = env_*", "none of its 10 scenes")
        self.assertFalse((run / "checkpoints").exists())


if __name__ == "__main__":
    unittest.main()
