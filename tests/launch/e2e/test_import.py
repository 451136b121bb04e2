"""Runs that pass through the LVSM family's file format, and training of its other editors. (PyTorch's side of the format is in
tests/launch/reference.)"""

import json
import unittest

from common import MEASURED, WEIGHTING, EndToEndTest, checkpoint, launch, metrics, needs_program, samples, tensors, train_arguments

EDITOR = "model.transformer.editor."
FAMILY = [EDITOR + choice for choice in ("time_scale=1", "velocity_head=false", "light_in_adaln=false", "normalize_latents=false")]
FIXED = f"{WEIGHTING}=fixed"


def setUpModule():
    needs_program()


def comparable(line):
    return {key: value for key, value in line.items() if key not in MEASURED}


class ImportTest(EndToEndTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stage1 = cls.folder / "stage1.safetensors"  # without its untrained editor, which is of another form
        launch(0, "export", samples() / "stage1", cls.stage1, "--parts", "reconstructor,renderer")

    def train(self, name, steps, *overrides, ranks=1, **options):
        run = self.folder / name
        common = [FIXED, *FAMILY, f"training.init_from={self.stage1}", f"training.train_steps={steps}"]
        launch(ranks, *train_arguments("joint", run, *common, *overrides, **options))
        return run

    def goes_on_behind_export_and_import(self, name, *overrides):
        """What import said, of a run of four steps that passes through a .pt file after two."""
        whole, part = self.train(f"{name}-whole", 4, *overrides), self.train(f"{name}-part", 2, *overrides)
        file, imported = self.folder / f"{name}.pt", self.folder / f"{name}-imported"
        launch(0, "export", part, file, "--format", "reference")
        said = launch(0, "import", file, imported, "--config", samples() / "joint.yaml", *FAMILY, *overrides).err
        self.assertIn("updates 2", said)
        launch(0, "verify", imported)
        rest = self.train(f"{name}-rest", 4, *overrides, resume=imported)
        self.assertEqual([comparable(line) for line in metrics(rest)], [comparable(line) for line in metrics(whole)[2:]])
        expected = tensors(checkpoint(whole))
        for key, value in tensors(checkpoint(rest)).items():
            if key in ("latent_mean", "latent_std"):  # no part of the format, and without effect here
                continue
            self.assertEqual(value.tobytes(), expected[key].tobytes(), key)
        return said

    def test_a_run_goes_on_bit_by_bit_behind_export_and_import(self):
        self.goes_on_behind_export_and_import("editor")

    def test_so_does_one_that_trains_the_renderer_on_stored_latents(self):
        """No optimizer of the family is of these parts alone: all are numbered, the reconstructor's without state."""
        said = self.goes_on_behind_export_and_import("renderer", "training.freeze_reconstructor_renderer=false")
        self.assertIn("parameters have no moments (they never had a gradient)", said)

    def test_a_pt_file_starts_a_run_and_encodes(self):
        file = self.folder / "stage1.pt"
        launch(0, "export", samples() / "stage1", file, "--format", "reference")
        folder = self.folder / "family"  # as training.LVSM_checkpoint_dir names it
        folder.mkdir()
        (folder / "ckpt_0000000000000001.pt").write_bytes(b"an older one")
        (folder / "ckpt_0000000000000002.pt").write_bytes(file.read_bytes())
        runs = [self.train("from-safetensors", 2), self.train("from-pt", 2, f"training.init_from={file}"),
                self.train("from-folder", 2, f"training.init_from={folder}")]
        lines = [[comparable(line) for line in metrics(run)] for run in runs]
        self.assertEqual(lines[0], lines[1])
        self.assertEqual(lines[0], lines[2])
        launch(0, "import", file, self.folder / "stage1", "--config", samples() / "reconstruction.yaml")
        launch(0, "encode", "--checkpoint", self.folder / "stage1", "--data", samples() / "scenes", "--out", self.folder / "pairs")
        for name in ("pairs-00000.h5", "pairs-00001.h5"):
            self.assertEqual((self.folder / "pairs" / name).read_bytes(), (samples() / "pairs" / name).read_bytes())

    def test_other_editors_train_the_same_on_two_ranks_and_are_evaluated(self):
        for kind in ("noise_to_relit", "one_step", "residual"):
            with self.subTest(kind):
                runs = [self.train(f"{kind}-{ranks}", 2, f"{EDITOR}kind={kind}", ranks=ranks) for ranks in (1, 2)]
                for one, two in zip(*map(metrics, runs)):
                    for loss in ("velocity_loss", "render_loss", "grad_norm"):
                        self.assertAlmostEqual(one[loss] / two[loss], 1, delta=1e-5)
                out = self.folder / f"{kind}-measured"
                launch(0, "evaluate", "--checkpoint", runs[0], "--data", samples() / "pairs", "--out", out, "--rows", 1)
                self.assertGreater(json.loads((out / "metrics.json").read_text())["psnr"], 0)

    def test_micro_steps_of_an_editor_from_noise_give_the_step(self):
        choices = (f"{EDITOR}kind=noise_to_relit", f"{EDITOR}latent_scale=0.136", f"{WEIGHTING}=normalized")
        whole, parts = self.train("whole-batch", 2, *choices), self.train("micro-steps", 2, *choices, "training.batch_size_per_gpu=5")
        for one, two in zip(metrics(whole), metrics(parts)):
            for number in ("velocity_loss", "render_loss", "velocity_weight", "grad_norm"):
                self.assertAlmostEqual(one[number] / two[number], 1, delta=1e-5)


if __name__ == "__main__":
    unittest.main()
