"""Fresh weights: each tensor's distribution as the class draws it and as a run of duoflow that names the class does."""

import math

import torch
import yaml
from safetensors.torch import load_file

import checkout_step
from checkout_cases import FLOW, NOISE, ONE_STEP, RESIDUAL
from checkout_data import INPUTS, LIGHTS_GLOB, TARGETS, case_of, encoded
from checkout_parts import quietly

SIGMAS = 5.0  # a thousand numbers: by chance one of them is beyond this in two thousand seeds


def distance(value, expected):
    """Standard deviations between two draws' second and fourth moments; infinite where a constant is another one."""
    value, expected = value.double().flatten(), expected.double().flatten()
    if expected.std(correction=0) == 0:
        return 0.0 if torch.equal(value, expected) else math.inf
    moments = [((x**2).mean().item(), (x**4).mean().item() / (x**2).mean().item() ** 2) for x in (value, expected)]
    n = value.numel()
    width = math.log(moments[0][0] / moments[1][0]) / math.sqrt(2 * 2 / n) if min(m[0] for m in moments) > 0 else math.inf
    shape = (moments[0][1] - moments[1][1]) / math.sqrt(2 * 24 / n)
    return max(abs(width), abs(shape))


def fresh(program, config, pairs, name):
    """What a run starts from: its checkpoint after a step of learning rate 0."""
    path, run = program.scratch / f"fresh_{name}.yaml", program.scratch / f"fresh_{name}"
    path.write_text(yaml.safe_dump(config))
    program("train", "--config", path, "--data", pairs, "--run", run, "training.train_steps=1", "training.lr=0",
            "training.global_batch_size=1", "training.freeze_reconstructor_renderer=true", "data.allow_other_producer=true",
            "dist.threads=1")
    folder = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    return {key: value for file in folder.glob("model-*.safetensors") for key, value in load_file(file).items()}


def compare(program, table, folder, checkpoint):
    pairs = encoded(program, checkpoint, folder, INPUTS, TARGETS, "pairs_fresh", LIGHTS_GLOB).path
    classes = {"flow editor": FLOW, "noise to relit": NOISE, "one-step editor": ONE_STEP, "residual editor": RESIDUAL}
    for name, class_name in classes.items():
        for depth in (True, False):
            torch.manual_seed(1)
            _, config = case_of(class_name)
            config["model"]["transformer"] |= {"depth_init": depth, "special_init": depth}
            ours = fresh(program, config, pairs, f"{name}_{depth}".replace(" ", "_"))
            theirs = checkout_step.own(quietly(lambda: checkout_step.build(config)).state_dict())
            errors = {key: distance(ours[key], value) if key in ours else math.inf for key, value in theirs.items() if value.dim() > 0}
            quantity = f"deviation and kurtosis, in standard errors; special_init and depth_init {str(depth).lower()}"
            table.add(f"{name}, fresh weights", quantity, errors, SIGMAS)
