"""Files that `duoflow import` refuses: one message, exit code 3, nothing under the final name."""

import os
import pickle
import unittest
import zipfile

import torch

from reference_run import ReferenceTest, Run, config


class Evil:
    """What a hostile file would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class BadInputTest(ReferenceTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        run = Run(config("flow"))
        run.step()
        cls.checkpoint = run.checkpoint()
        cls.values = run.config

    def content(self):
        return {"model": dict(self.checkpoint["model"]), **{key: self.checkpoint[key] for key in self.checkpoint if key != "model"}}

    def refused(self, source, *phrases, arguments=(), code=3):
        out = self.folder / "out"
        said = self.duoflow("import", source, out, "--config", self.yaml(self.values), *arguments, code=code)
        self.assertEqual(said.count("duoflow: "), 1, said)
        for phrase in phrases:
            self.assertIn(phrase, said)
        self.assertFalse(list(self.folder.glob("out*")))
        return said

    def saved(self, content, name="ck.pt", **options):
        torch.save(content, self.folder / name, **options)
        return self.folder / name

    def refused_content(self, content, *phrases, **options):
        return self.refused(self.saved(content), "ck.pt", *phrases, **options)

    def test_a_missing_tensor_is_named_with_the_nearest(self):
        content = self.content()
        content["model"]["time_embedder.mlp.02.bias"] = content["model"].pop("time_embedder.mlp.2.bias")
        self.refused_content(content, "first is time_embedder.mlp.2.bias, the nearest is time_embedder.mlp.02.bias;")

    def test_an_unknown_tensor_is_named_with_the_nearest(self):
        content = self.content()
        content["model"]["time_embedder.mlp.3.bias"] = torch.zeros(16)
        for _ in range(2):
            self.refused_content(content, "time_embedder.mlp.3.bias", "the nearest is time_embedder.mlp.")
            content.pop("optimizer", None)  # beside it too the name is the cause, not the number of parameters

    def test_a_tensor_that_is_not_there_at_all_is_named_before_its_moments(self):
        content = self.content()
        del content["model"]["transformer_encoder.0.attn.fc.weight"]
        self.refused_content(content, "first is transformer_encoder.0.attn.fc.weight, the nearest is transformer_")

    def test_a_tensor_of_another_shape_is_named_with_both(self):
        content = self.content()
        content["model"]["env_tokenizer.1.weight"] = torch.zeros(16, 35)
        self.refused_content(content, "env_tokenizer.1.weight", "[16,35]", "[16,36]")

    def test_another_architecture_is_told_by_both_sizes(self):
        self.values = config("flow")
        self.values["model"]["transformer"] |= {"d": 32, "encoder_n_layer": 3}
        self.refused_content(self.content(), "model.transformer.d is 32 in the config, 16 in the file", "encoder_n_layer is 3 in the config, 1 in the file")
        self.values = config("residual")
        self.refused_content(self.content(), "kind is \"residual\" in the config, flow in the file")

    def test_a_dpt_head_is_said_to_be_left_out(self):
        content = self.content()
        content["model"]["image_token_decoder.projects.0.weight"] = torch.zeros(4, 4)
        self.refused_content(content, "DPT")

    def test_an_editor_of_point_lights_alone_is_said_to_be_left_out(self):
        content = self.content()
        content["model"]["point_light_tokenizer.0.weight"] = torch.zeros(16, 10)
        self.refused_content(content, "neither fits")  # beside light maps it may be left behind, but its moments count
        del content["model"]["env_tokenizer.1.weight"]
        self.refused_content(content, "point lights alone")

    def test_numbers_that_are_not_finite(self):
        content = self.content()
        content["model"]["image_tokenizer.1.weight"] = content["model"]["image_tokenizer.1.weight"].clone()
        content["model"]["image_tokenizer.1.weight"][3, 2] = float("nan")
        self.refused_content(content, "1 of the 576 numbers of image_tokenizer.1.weight are not finite")
        content = self.content()
        state = {index: dict(entry) for index, entry in content["optimizer"]["state"].items()}
        state[1]["exp_avg"] = state[1]["exp_avg"] * float("inf")
        content["optimizer"] = content["optimizer"] | {"state": state}
        self.refused_content(content, "exp_avg of image_tokenizer.1.weight holds numbers that are not finite")

    def test_an_optimizer_of_other_parameters(self):
        content = self.content()
        groups = [dict(group) for group in content["optimizer"]["param_groups"]]
        groups[0]["params"] = groups[0]["params"][:-1]
        content["optimizer"] = content["optimizer"] | {"param_groups": groups}
        self.refused_content(content, "optimizer has", "--weights-only")
        self.duoflow("import", self.folder / "ck.pt", self.folder / "weights", "--config", self.yaml(self.values), "--weights-only")

    def test_moments_of_another_shape(self):
        content = self.content()
        state = {index: dict(entry) for index, entry in content["optimizer"]["state"].items()}
        state[1]["exp_avg_sq"] = torch.zeros(3, 3)
        content["optimizer"] = content["optimizer"] | {"state": state}
        self.refused_content(content, "exp_avg_sq of image_tokenizer.1.weight has shape [3,3]", "[16,36]")

    def test_a_pickle_that_runs_code_is_refused_and_not_run(self):
        mark = self.folder / "ran"
        self.refused_content(self.content() | {"extra": Evil(mark)}, "it refers to posix.mkdir")
        self.assertFalse(mark.exists())

    def test_torchs_old_format_is_named_with_the_cure(self):
        self.refused(self.saved(self.content(), _use_new_zipfile_serialization=False), "old format", "torch.save(torch.load(")

    def test_a_file_that_was_cut_short(self):
        whole = self.saved(self.content(), "whole.pt").read_bytes()
        for share in (0.001, 0.3, 0.9, 0.999):
            (self.folder / "ck.pt").write_bytes(whole[: int(share * len(whole))])
            self.refused(self.folder / "ck.pt", "ck.pt: ")

    def test_a_flipped_bit_in_a_tensor_is_found(self):
        path = self.saved(self.content())
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            place = archive.getinfo("ck/data/2").header_offset + 256
        data[place] ^= 1
        path.write_bytes(data)
        self.refused(path, "ck/data/2 has CRC")

    def test_files_that_are_something_else(self):
        (self.folder / "text.pt").write_text("not a checkpoint at all, but quite a few words")
        self.refused(self.folder / "text.pt", "not a zip archive")
        (self.folder / "empty.pt").write_bytes(b"")
        self.refused(self.folder / "empty.pt", "not a zip archive")
        with zipfile.ZipFile(self.folder / "zip.pt", "w") as archive:
            archive.writestr("a/b", "c")
        self.refused(self.folder / "zip.pt", "no data.pkl")
        with zipfile.ZipFile(self.folder / "list.pt", "w") as archive:
            archive.writestr("list/data.pkl", pickle.dumps([1, 2], protocol=2))
        self.refused(self.folder / "list.pt", "a list (a dict belongs there)")
        self.refused(self.folder / "nowhere.pt", "nowhere.pt cannot be read")
        self.refused(self.folder, "it is not a file")

    def test_what_is_there_already_is_not_written_over(self):
        path = self.saved(self.content())
        (self.folder / "taken").mkdir()
        said = self.duoflow("import", path, self.folder / "taken", "--config", self.yaml(self.values), code=3)
        self.assertIn("is there already", said)
        self.assertEqual(list((self.folder / "taken").iterdir()), [])
        (self.folder / "file").write_text("mine")
        self.refused(path, "is there already", arguments=("--set-aside", self.folder / "file"))
        self.assertEqual((self.folder / "file").read_text(), "mine")

    def test_a_config_that_cannot_be_used_is_a_usage_error(self):
        self.refused(self.saved(self.content()), "unknown key", arguments=("training.lrr=1",), code=2)


if __name__ == "__main__":
    unittest.main()
