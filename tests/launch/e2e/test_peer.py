"""The PyTorch step of benchmarks/peer is duoflow's step, and one that is not is refused before it is timed."""

import sys
import unittest

from common import SOURCE, WEIGHTING, EndToEndTest, needs_program, samples

GLOBAL_BATCH = 12


def setUpModule():
    needs_program()
    global agreement, inputs, pairs, peer, safetensors, tensor_file, training, yaml
    sys.path.insert(0, str(SOURCE / "benchmarks" / "peer"))
    try:
        import agreement, inputs, pairs, peer, safetensors.torch, tensor_file, training, yaml
    except ImportError as error:
        raise unittest.SkipTest(f"{error}: launch/setup.sh --full installs Python's torch") from error
    inputs.torch.set_num_threads(1)


class PeerTest(EndToEndTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pairs, cls.weights = samples() / "pairs", cls.folder / "weights.safetensors"
        cls.config = inputs.effective_config(samples() / "joint.yaml", cls.pairs, cls.folder / "effective",
                                             [f"{WEIGHTING}=normalized", "training.lr=1e-3", "dist.threads=1"])
        cls.config["training"]["global_batch_size"] = GLOBAL_BATCH
        inputs.write_weights(cls.weights, cls.config, samples() / "stage1", cls.pairs)
        for precision in ("fp32", "bf16"):
            config = cls.write_config("reference", precision)
            inputs.write_reference(cls.folder / f"{precision}.safetensors", config, cls.weights, cls.pairs)

    @classmethod
    def write_config(cls, name, precision, ranks=1, **changes):
        """A file with the config of so many ranks; changes: of keys in `training`."""
        size = {"batch_size_per_gpu": GLOBAL_BATCH // ranks, "use_amp": precision == "bf16"}
        path = cls.folder / f"{name}-{precision}-{ranks}.yaml"
        path.write_text(yaml.safe_dump(cls.config | {"training": cls.config["training"] | size | changes}))
        return path

    def arguments(self, precision="fp32", ranks=1, **others):
        """The peer's command line; others: files instead of the right ones."""
        files = {"config": self.write_config("peer", precision, ranks), "pairs": self.pairs, "weights": self.weights,
                 "reference": self.folder / f"{precision}.safetensors"} | others
        return [word for name, path in files.items() for word in (f"--{name}", str(path))] + ["--steps", "2", "--warm-up", "0", "--device", "cpu"]

    def run_here(self, arguments, variant="eager"):
        return next(peer.run(peer.parse([*arguments, "--variant", variant]), rank=0, ranks=1))

    def assert_timed(self, result, precision="fp32"):
        self.assertEqual(len(result["step_ms"]), 2)
        self.assertTrue(all(ms > 0 for ms in result["step_ms"]), result)
        self.assertGreaterEqual(result["peak_mib"], result["start_mib"])
        for difference, allowed in zip(result["differences"], agreement.TOLERANCE["cpu"][precision], strict=True):
            self.assertLessEqual(difference, allowed)

    def changed(self, file, key, change):
        """A copy of a safetensors file in which `change` has altered one tensor in place."""
        tensors = safetensors.torch.load_file(file)
        change(tensors[key])
        path = self.folder / "changed.safetensors"
        safetensors.torch.save_file(tensors, path)
        return path

    def test_every_variant_takes_the_steps_of_duoflow(self):
        for variant in ("eager", "eager-matmul", "eager-kept", "eager-matmul-kept"):
            self.assert_timed(self.run_here(self.arguments(), variant))

    def test_bf16_is_another_computation_within_its_tolerance(self):
        result = self.run_here(self.arguments("bf16"), "eager-matmul")
        self.assert_timed(result, "bf16")
        self.assertGreater(result["differences"][2], agreement.TOLERANCE["cpu"]["fp32"][2])

    def test_the_shard_that_it_reads_is_the_one_that_h5py_reads(self):
        import h5py

        shard = pairs.Shard(self.pairs)
        with h5py.File(shard.path) as file:
            for name in ("pairs", "latents", "target_images", "target_c2w", "target_fxfycxcy", "env", "env_row"):
                self.assertEqual(list(file[name].shape), shard.shape(name))
                for row in (0, len(file[name]) - 1):
                    if file[name].dtype.kind != "V":  # bf16, which h5py does not know
                        self.assertEqual(file[name][row].tolist(), shard.row(name, row).tolist(), name)

    def test_its_safetensors_are_those_of_the_package(self):
        torch = inputs.torch
        tensors = {"a": torch.arange(6.0).view(2, 3), "none": torch.empty(0, 4), "one": torch.tensor(7), "half": torch.arange(3).bfloat16(),
                   "turned": torch.arange(6.0).view(2, 3).t(), "odd": torch.arange(3, dtype=torch.uint8), "last": torch.tensor([1.5])}
        path = self.folder / "own.safetensors"
        tensor_file.save(tensors, path)
        for found in (safetensors.torch.load_file(path), tensor_file.load(path)):
            self.assertEqual(found.keys(), tensors.keys())
            for name, tensor in tensors.items():
                self.assertEqual(found[name].dtype, tensor.dtype)
                self.assertTrue(torch.equal(found[name], tensor), name)
        path.write_bytes(path.read_bytes()[:-1])
        with self.assertRaisesRegex(SystemExit, "ends before byte"):
            tensor_file.load(path)

    def test_a_peer_that_stays_times_every_turn(self):
        staying = inputs.StayingPeer(*self.arguments(), "--attention", "measured")
        self.addCleanup(staying.close)
        for _ in range(2):
            self.assert_timed(staying.turn())

    def test_a_peer_that_stays_and_disagrees_says_so(self):
        wrong = self.changed(self.weights, "latent_std", lambda tensor: tensor[..., 0].mul_(1.1))
        with self.assertRaisesRegex(inputs.ProgramFailed, "not the same step"):
            inputs.StayingPeer(*self.arguments(weights=wrong))

    def test_an_attention_that_cannot_run_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "attention by cudnn cannot run"):
            self.run_here([*self.arguments(), "--attention", "cudnn"])

    def test_two_ranks_take_the_steps_of_one_program(self):
        self.assert_timed(inputs.peer(2, *self.arguments(ranks=2)))

    def test_a_wrong_weight_is_refused(self):
        for key in ("transformer_editor.0.mlp.mlp.0.weight", "transformer_decoder.0.attn.fc.weight", "latent_std"):
            wrong = self.changed(self.weights, key, lambda tensor: tensor[..., 0].mul_(1.1))
            with self.assertRaisesRegex(agreement.Disagreement, r"step 1: the peer's .*relative difference .*allowed .* in fp32", msg=key):
                self.run_here(self.arguments(weights=wrong))

    def test_another_update_is_refused_at_the_next_step(self):
        with self.assertRaisesRegex(agreement.Disagreement, "step 2: the peer's"):
            self.run_here(self.arguments(config=self.write_config("other_rate", "fp32", lr=2e-3)))

    def test_a_reference_on_another_batch_is_refused(self):
        other = self.changed(self.folder / "fp32.safetensors", "x1", lambda tensor: tensor[0, 0, 0].add_(1))
        with self.assertRaisesRegex(agreement.Disagreement, "x1 of the batch is not the reference's"):
            self.run_here(self.arguments(reference=other))

    def test_a_config_whose_step_the_peer_does_not_know_is_refused(self):
        for change, problem in (({"ema_decay": 0.9}, "training.ema_decay is 0.9"), ({"batch_size_per_gpu": 5}, "no global_batch_size 12")):
            with self.assertRaisesRegex(SystemExit, problem):
                self.run_here(self.arguments(config=self.write_config("unknown", "fp32", **change)))


if __name__ == "__main__":
    unittest.main()
