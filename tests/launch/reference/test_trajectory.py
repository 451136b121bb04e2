"""A run that changes programs goes on as if it had not: PyTorch to duoflow by `import`, and back by `export`.

Tolerances as in tests/launch/step: what another fp32 implementation needs.
"""

import math
import unittest

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from reference_run import OWN, ReferenceTest, Run, config, loss_networks

BEFORE, AFTER = 3, 7
ACTIVATIONS = ("x0", "x1", "x_t", "velocity", "x_hat", "render")
LOSSES = ("velocity_loss", "render_loss", "total_loss", "psnr")


def relative_error(value, expected):
    expected = expected.detach().double().numpy()
    return np.abs(value.astype(np.float64) - expected).max() / max(np.abs(expected).max(), 1e-30)


class TrajectoryTest(ReferenceTest):
    def imported(self, run, *arguments):
        torch.save(run.checkpoint(), self.folder / "ck.pt")
        out = self.folder / "imported"
        self.said = self.duoflow("import", self.folder / "ck.pt", out, "--config", self.yaml(run.config), *arguments)
        return out

    def go_on(self, run, weights, steps=AFTER):
        save_file({key: value.contiguous() for key, value in run.batch.items()}, self.folder / "batch.safetensors")
        out = self.folder / "out.safetensors"
        self.duoflow("step", "--config", self.yaml(run.config), "--weights", weights, "--batch", self.folder / "batch.safetensors",
                     "--out", out, "--steps", steps, f"objective={run.objective}")
        return load_file(out)

    def assert_continues(self, run, weights):
        out = self.go_on(run, weights)
        before = run.forward()
        gradients = torch.autograd.grad(before["total_loss"], run.trained, allow_unused=True)
        names = {id(value): name for name, value in run.model.named_parameters()}
        for name in ACTIVATIONS:
            if name in before:
                with self.subTest(tensor=name):
                    self.assertLess(relative_error(out[name], before[name]), 5e-6)
        for name in LOSSES:
            if name in out:
                with self.subTest(loss=name):
                    self.assertLess(relative_error(out[name], before[name]), 1e-6)
        for value, gradient in zip(run.trained, gradients):
            if gradient is not None:
                with self.subTest(gradient=names[id(value)]):
                    self.assertLess(relative_error(out["grad." + names[id(value)]], gradient), 3e-5)
        expected = torch.stack([run.step() for _ in range(AFTER)]).double().numpy()
        if run.training["flow_loss_weight"] == 0:
            expected[:, 1] = 0  # not computed
        for column, number in enumerate(("total_loss", "velocity_loss", "render_loss", "psnr", "gradient norm")):
            with self.subTest(trajectory=number):
                np.testing.assert_allclose(out["trajectory"][:, column], expected[:, column], rtol=5e-6, atol=1e-12)
        for name, value in run.model.named_parameters():
            if "param." + name in out:
                with self.subTest(parameter=name):
                    np.testing.assert_allclose(out["param." + name], value.detach().numpy(), rtol=0, atol=1e-5)

    def assert_imported_run_continues(self, run):
        for _ in range(BEFORE):
            run.step()
        self.assert_continues(run, self.imported(run))

    def test_flow_editor(self):
        self.assert_imported_run_continues(Run(config("flow"), fused=True))

    def test_flow_editor_of_an_optimizer_that_is_not_fused(self):
        self.assert_imported_run_continues(Run(config("flow", scheduler_type="linear"), fused=False))

    def test_noise_to_relit(self):
        self.assert_imported_run_continues(Run(config("noise_to_relit")))

    def test_one_step_editor(self):
        self.assert_imported_run_continues(Run(config("one_step")))

    def test_residual_editor(self):
        self.assert_imported_run_continues(Run(config("residual")))

    def test_reconstructor_and_renderer_alone(self):
        run = Run(config("flow"), objective="reconstruction")
        for _ in range(BEFORE):
            run.step()
        out = self.imported(run, "objective=reconstruction")
        self.assertIn("it has no editor", self.said)
        self.assert_continues(run, out)

    def test_editor_alone(self):
        self.assert_imported_run_continues(Run(config("flow", freeze=True), frozen=True))

    def test_a_skipped_update_moves_the_schedule_but_not_adam(self):
        run = Run(config("flow"))
        for skip in (False, True, False):
            run.step(skip)
        out = self.imported(run)
        self.assertIn("updates 2, learning rate's schedule at 3", self.said)
        self.assert_continues(run, out)

    def test_a_run_that_never_rendered(self):
        run = Run(config("flow", skip_renderer=True))
        for _ in range(BEFORE):
            run.step()
        out = self.imported(run)
        self.assertIn("parameters have no moments", self.said)
        ours = self.go_on(run, out)
        expected = torch.stack([run.step() for _ in range(AFTER)]).double().numpy()
        np.testing.assert_allclose(ours["trajectory"][:, [0, 1, 4]], expected[:, [0, 1, 4]], rtol=5e-6)

    def test_bare_state_dicts_and_wrapped_names_are_weights(self):
        run = Run(config("flow"))
        wrapped = {"module." + name: value for name, value in run.state_dict().items()}
        for name, content in (("bare", run.state_dict()), ("wrapped", {"model": wrapped})):
            torch.save(content, self.folder / f"{name}.pt")
            self.duoflow("import", self.folder / f"{name}.pt", self.folder / name, "--config", self.yaml(run.config))
            out = self.go_on(run, self.folder / f"{name}.pt", steps=0)
            self.assertLess(relative_error(out["velocity"], run.forward()["velocity"]), 5e-6)

    def test_other_number_types_are_read(self):
        run = Run(config("flow"))
        torch.save({name: value.half() for name, value in run.state_dict().items()}, self.folder / "half.pt")
        self.duoflow("import", self.folder / "half.pt", self.folder / "half", "--config", self.yaml(run.config))
        stored = load_file(next((self.folder / "half").glob("model-*.safetensors")))
        for name, value in run.state_dict().items():
            np.testing.assert_array_equal(stored[name], value.half().float().numpy(), err_msg=name)

    def test_without_a_config_class_and_sizes_are_told_from_the_tensors(self):
        classes = {"flow": "LVSM_flow_match_editor.FlowMatchEditor", "noise_to_relit": "LVSM_flow_match_editor_noise2relit.FlowMatchEditor",
                   "one_step": "LVSM_scene_encoder_decoder_wEditor.LatentSceneEditor",
                   "residual": "LVSM_scene_encoder_decoder_wEditor_residual.LatentSceneEditor"}
        for kind, name in classes.items():
            run = Run(config(kind))
            run.step()
            torch.save(run.checkpoint(), self.folder / f"{kind}.pt")
            self.duoflow("import", self.folder / f"{kind}.pt", self.folder / kind)
            import yaml

            told = yaml.safe_load((self.folder / kind / "config.yaml").read_text())
            self.assertEqual(told["model"]["class_name"], "model." + name)
            self.assertEqual(told["model"]["transformer"]["editor"]["kind"], kind)
            for key in ("d", "d_head", "encoder_n_layer", "decoder_n_layer", "n_latent_vectors", "use_qk_norm"):
                self.assertEqual(told["model"]["transformer"][key], run.config["model"]["transformer"][key])
            for key in ("lr", "beta1", "beta2", "weight_decay"):
                self.assertEqual(told["training"][key], run.training[key])

    def test_what_the_optimizer_was_saved_with_wins_over_the_file_and_the_command_line_over_both(self):
        run = Run(config("flow"))
        run.step()
        run.config = config("flow", lr=0.5, beta2=0.5)
        stored = lambda out: __import__("yaml").safe_load((out / "config.yaml").read_text())["training"]
        self.assertEqual(stored(self.imported(run))["lr"], 0.001)
        self.duoflow("import", self.folder / "ck.pt", self.folder / "again", "--config", self.yaml(run.config), "training.lr=0.25")
        self.assertEqual(stored(self.folder / "again")["lr"], 0.25)
        self.assertEqual(stored(self.folder / "again")["beta2"], 0.95)

    def exported(self, checkpoint, *arguments):
        out = self.folder / "exported.pt"
        self.said = self.duoflow("export", checkpoint, out, "--format", "reference", *arguments)
        return torch.load(out, weights_only=True, map_location="cpu")

    def test_pytorch_goes_on_from_an_export(self):
        for kind in ("flow", "noise_to_relit", "one_step", "residual"):
            run = Run(config(kind))
            for skip in (False, True, False):
                run.step(skip)
            run.forward_passes += 17  # of steps that its program skipped
            back = self.exported(self.imported(run))
            other = Run(config(kind), fused=kind == "flow")
            own = {name: getattr(other.model, name) for name in OWN}
            other.model.load_state_dict(back["model"] | own, strict=True)
            other.optimizer.load_state_dict(back["optimizer"])
            other.scheduler.load_state_dict(back["lr_scheduler"])
            self.assertEqual((back["fwdbwd_pass_step"], back["param_update_step"]), (20, 2))
            self.assert_same_state(other, run)
            for _ in range(AFTER):  # in last bits a product depends on where in memory its factors lie
                np.testing.assert_allclose(other.step(), run.step(), rtol=3e-6)
            (self.folder / "exported.pt").unlink()
            __import__("shutil").rmtree(self.folder / "imported")

    def assert_same_state(self, one, two):
        for (name, value), (_, other) in zip(one.state_dict().items(), two.state_dict().items()):
            self.assertTrue(torch.equal(value, other), name)
        states = one.optimizer.state_dict(), two.optimizer.state_dict()
        self.assertEqual([group["params"] for group in states[0]["param_groups"]], [group["params"] for group in states[1]["param_groups"]])
        for index, state in states[0]["state"].items():
            for key, value in state.items():
                self.assertTrue(torch.equal(value, states[1]["state"][index][key]), (index, key))
        self.assertEqual(one.scheduler.state_dict()["last_epoch"], two.scheduler.state_dict()["last_epoch"])
        self.assertTrue(math.isclose(one.scheduler.get_last_lr()[0], two.scheduler.get_last_lr()[0], rel_tol=1e-7))

    def test_an_export_holds_the_bits_of_the_import(self):
        run = Run(config("noise_to_relit"))
        for _ in range(BEFORE):
            run.step()
        back, ours = self.exported(self.imported(run)), run.checkpoint()
        parameters = lambda state_dict: [name for name in state_dict if name != "noise_scale_ema"]  # a buffer: its place is free
        self.assertEqual(parameters(back["model"]), parameters(ours["model"]))
        for name, value in ours["model"].items():
            self.assertTrue(torch.equal(back["model"][name], value), name)
        self.assertEqual(back["optimizer"]["state"].keys(), ours["optimizer"]["state"].keys())
        for index, state in ours["optimizer"]["state"].items():
            for key, value in state.items():
                self.assertTrue(torch.equal(back["optimizer"]["state"][index][key], value), (index, key))
        for mine, theirs in zip(ours["optimizer"]["param_groups"], back["optimizer"]["param_groups"]):
            self.assertEqual(mine["params"], theirs["params"])
            for key in ("betas", "eps", "weight_decay", "initial_lr", "amsgrad", "maximize"):
                self.assertEqual(mine[key], theirs[key], key)
            self.assertTrue(math.isclose(mine["lr"], theirs["lr"], rel_tol=1e-7))

    def test_loss_networks_are_set_aside_and_put_back(self):
        run = Run(config("flow"))
        run.step()
        content = run.checkpoint()
        content["model"] |= loss_networks()
        torch.save(content, self.folder / "whole.pt")
        aside = self.folder / "networks.safetensors"
        said = self.duoflow("import", self.folder / "whole.pt", self.folder / "ck", "--config", self.yaml(run.config), "--set-aside", aside)
        self.assertIn("3 tensors set aside", said)
        back = self.exported(self.folder / "ck", "--set-aside", aside)
        self.assertEqual(back["model"].keys(), content["model"].keys())
        for name, value in content["model"].items():
            self.assertTrue(torch.equal(back["model"][name], value), name)
        self.exported(self.folder / "ck")
        self.assertIn("no loss networks in it", self.said)

    def test_what_no_class_of_the_family_computes_is_not_exported(self):
        run = Run(config("flow"))
        run.step()
        values = config("flow")
        values["model"]["transformer"]["editor"]["time_scale"] = 1000
        run.config = values
        out = self.imported(run)
        said = self.duoflow("export", out, self.folder / "no.pt", "--format", "reference", code=3)
        self.assertIn("time_scale: 1000", said)
        self.assertFalse((self.folder / "no.pt").exists())


if __name__ == "__main__":
    unittest.main()
