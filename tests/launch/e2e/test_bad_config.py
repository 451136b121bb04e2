"""A wrong command line or config: exit code 2, one message that names the key, and no run folder with a checkpoint."""

import unittest

from common import WEIGHTING, launch, needs_program, samples, train_arguments
from refusal import RefusalTest


def setUpModule():
    needs_program()


class BadConfigTest(RefusalTest):
    def refuse_config(self, *words, overrides=(), text="", ranks=2):
        run, config = self.folder / self._testMethodName, self.folder / f"{self._testMethodName}.yaml"
        config.write_text((samples() / "joint.yaml").read_text() + text)
        arguments = train_arguments("joint", run, *overrides)
        arguments[arguments.index("--config") + 1] = config
        message = self.refuse(arguments, 2, *words, ranks=ranks)
        self.assertFalse((run / "checkpoints").exists())
        return message

    def test_misspelt_key_names_the_nearest(self):
        self.refuse_config("training.batch_size_per_gpus", "training.batch_size_per_gpu?", overrides=["training.batch_size_per_gpus=3"])

    def test_misspelt_key_in_the_file_names_its_line(self):
        lines = (samples() / "joint.yaml").read_text().count("\n")
        self.refuse_config("data.thread", "data.threads?", f".yaml:{lines + 1}", text="data: {thread: 2}\n")

    def test_wrong_type(self):
        self.refuse_config("training.train_steps", "many", "int", overrides=["training.train_steps=many"])

    def test_value_out_of_range(self):
        self.refuse_config("model.transformer.d", "33", overrides=["model.transformer.d=33"])

    def test_unknown_weighting(self):
        self.refuse_config(WEIGHTING, "normalised", "normalized", overrides=[f"{WEIGHTING}=normalised"])

    def test_normalize_losses_against_weighting(self):
        overrides = [f"{WEIGHTING}=fixed", "model.transformer.editor.flow_matching.normalize_losses=true"]
        self.refuse_config("normalize_losses", "fixed", "contradicts", overrides=overrides)

    def test_normalized_weights_with_one_loss_off(self):
        off = "model.transformer.editor.flow_matching.render_loss_weight=0"
        self.refuse_config(WEIGHTING, "normalized", "render_loss_weight 0", overrides=[off])

    def test_global_batch_smaller_than_the_ranks(self):
        self.refuse_config("training.global_batch_size = 2", "3", overrides=["training.global_batch_size=2"], ranks=3)

    def test_model_of_another_size_than_the_pairs(self):
        message = self.refuse(train_arguments("joint", self.folder / "other", "model.transformer.n_latent_vectors=16", 'training.init_from=""'), 3, "16", "8")
        self.assertIn("n_latent_vectors", message)

    def test_missing_config(self):
        arguments = train_arguments("joint", self.folder / "none")
        arguments[arguments.index("--config") + 1] = self.folder / "nowhere.yaml"
        self.refuse(arguments, 2, "nowhere.yaml")

    def test_not_yaml(self):
        self.refuse_config("YAML", text="training: [}\n")

    def test_command_line(self):
        for arguments in ([], ["trian"], ["train"], ["train", "--config", "a"], ["synth", "--size", "big", "--out", self.folder / "x"]):
            outcome = launch(0, *arguments, code=2)
            self.assertIn("--help", outcome.out + outcome.err)


if __name__ == "__main__":
    unittest.main()
