"""First steps, trajectories and checkpoint files of the family's classes and programs against duoflow's."""

import contextlib
import io
import pathlib
import subprocess
import sys

import torch
import yaml

import checkout_loop
import checkout_step
import parity_table as tolerance
from checkout_cases import Drawn, make_batch

SOURCE = pathlib.Path(__file__).resolve().parents[3]
BEFORE, AFTER = 3, 7
ULP, NUDGES = 6e-8, 2
FIRST_DRAW, DRAWS = 17, 12


def quietly(action):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return action()


def load(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def vgg19(program):
    """The family's VGG19 file as duoflow's users convert it."""
    out = program.scratch / "vgg19.safetensors"
    if not out.exists():
        mat = program.scratch / "metric_checkpoint" / "imagenet-vgg-verydeep-19.mat"
        subprocess.run([sys.executable, SOURCE / "launch" / "loss_weights.py", "vgg19", mat, out], check=True, stdout=subprocess.DEVNULL)
    return out


class Comparison:
    """One case: its folder, its start, its batch, both sides' config. `draw`: of the weights it starts from."""

    def __init__(self, reference, program, case, draw=FIRST_DRAW):
        self.reference, self.program, self.case = reference, program, case
        self.folder = program.scratch / "".join(c if c.isalnum() else "_" for c in f"{case.name} {draw}")
        self.folder.mkdir()
        self.batch, self.drawn = make_batch(case), Drawn(case)
        self.yaml = self.folder / "config.yaml"
        self.yaml.write_text(yaml.safe_dump(case.config()))
        model = self.model()
        checkout_step.given_weights(model, draw)
        self.start = self.folder / "ckpt_0000000000000000.pt"
        torch.save({"model": checkout_step.own(model.state_dict())}, self.start)

    def model(self):
        return quietly(lambda: checkout_step.build(self.case.config()))

    def first_step(self, nudge=0):
        model = self.model()
        model.load_state_dict(self.nudged(nudge)["model"], strict=False)
        return quietly(lambda: checkout_step.first_step(self.case, model, self.case.config(), self.batch, self.drawn))

    def nudged(self, nudge):
        """The start, moved by about a unit in the last place: what no two fp32 implementations can be asked to agree on."""
        start = load(self.start)
        generator = torch.Generator().manual_seed(nudge)
        for value in start["model"].values():
            if nudge and value.dim() > 0:
                value *= 1 + ULP * torch.randn(value.shape, generator=generator)
        return start

    def steps(self, name, start, count, resume=False):
        """(rows, parameters, the checkpoint it wrote) of the family's own program."""
        rows, written = checkout_loop.run_program(self.reference, self.case, self.case.config(), self.batch, self.drawn, start,
                                                  self.folder / name, count, resume)
        trained = checkout_step.own(load(written)["model"])
        return rows, {key: value for key, value in trained.items() if value.dim() > 0}, written

    def duoflow(self, weights, given, count):
        options = [f"training.perceptual_weights={vgg19(self.program)}"] if self.case.perceptual else []
        out = self.program.step(self.yaml, weights, given, count, *options)
        parameters = {key.removeprefix("param."): value for key, value in out.items() if key.startswith("param.")}
        return out, out["trajectory"][:, [0, 1, 2, 4]], parameters

    def columns(self):
        return [0, 1, 3] if self.case.training.get("skip_renderer") else [0, 1, 2, 3] if self.case.flows else [0, 2, 3]


def own_gradient_distance(comparison, gradients):
    """Largest difference of the family's gradients to themselves when the weights move in their last place."""
    worst = 0.0
    for nudge in range(1, NUDGES + 1):
        moved = comparison.first_step(nudge)[2]
        worst = max(worst, *(tolerance.relative(moved[name], value) for name, value in gradients.items()))
    return worst


def own_trajectory_distance(comparison, table, rows, trained):
    """(rows', parameters') largest differences of the family's own program to itself, likewise."""
    norm = parameters = 0.0
    for nudge in range(1, NUDGES + 1):
        start = comparison.folder / f"nudged_{nudge}" / comparison.start.name
        start.parent.mkdir()
        torch.save(comparison.nudged(nudge), start)
        other, moved, _ = comparison.steps(f"run_nudged_{nudge}", start, len(rows))
        norm = max(norm, *table.distances(other, rows, comparison.columns()).values())
        parameters = max(parameters, *(tolerance.absolute(moved[name], value) for name, value in trained.items()))
    return norm, parameters


def smooth_start(reference, program, table, case):
    """(comparison, first step) at the first weights drawn at which the family's gradients agree with themselves, where they
    jump (Case.jumps). duoflow has no part in the choice."""
    passed_over = []
    for draw in range(FIRST_DRAW, FIRST_DRAW + DRAWS):
        comparison = Comparison(reference, program, case, draw)
        first = comparison.first_step()
        own = own_gradient_distance(comparison, first[2]) if case.jumps else 0.0
        if own <= tolerance.GRADIENTS / 4:
            if case.jumps:
                table.note(case.name, "the family to itself, weights moved by an ulp: gradients", [own])
            if passed_over:
                table.note(case.name, "the same at the weights drawn before and passed over", passed_over)
            return comparison, first
        passed_over.append(own)
    table.note(case.name, "the family to itself, at all weights drawn", passed_over)
    table.add(case.name, "weights at which the family's gradients agree with themselves", {}, 0)
    return None, None


def compare_trajectory(table, comparison, quantity, ours, rows, own=0.0):
    """Losses and norms of each step. A norm is no closer than the gradients it is of; own: the family's distance to itself."""
    *losses, norm = comparison.columns()
    allowed = max(tolerance.GRADIENTS, 4 * own) if comparison.case.jumps else tolerance.TRAJECTORY
    table.trajectory(comparison.case.name, f"{quantity}, losses", ours, rows, losses)
    table.trajectory(comparison.case.name, f"{quantity}, norms", ours, rows, [norm], allowed)


def compare_steps(reference, program, table, case):
    """The class opened up at one step, then its training program for ten."""
    comparison, first = smooth_start(reference, program, table, case)
    if comparison is None:
        return
    values, scalars, gradients, result = first
    given = checkout_step.duoflow_batch(case, result, comparison.drawn, case.config())
    out, ours, parameters = comparison.duoflow(comparison.start, given, case.steps)
    rows, trained, _ = comparison.steps("run", comparison.start, case.steps)
    table.compare(case.name, "activations", out, values, tolerance.ACTIVATIONS)
    table.compare(case.name, "losses", out, scalars, tolerance.LOSSES)
    table.compare(case.name, "gradients", out, gradients, tolerance.GRADIENTS)
    own = [0.0]
    if case.jumps:  # ten steps are not all at smooth points
        own = own_trajectory_distance(comparison, table, rows, trained)
        table.note(case.name, f"the family to itself, weights moved by an ulp: {case.steps} steps, parameters", own)
    compare_trajectory(table, comparison, f"{case.steps} steps", ours, rows, own[0])
    table.compare(case.name, f"parameters after {case.steps} steps (absolute)", parameters, trained, tolerance.PARAMETERS, tolerance.absolute)


def same_state(one, two):
    """0 where the bits of the optimizer's state are the same, tensor by tensor; what is absent differs."""
    differs = {"groups": float([group["params"] for group in one["param_groups"]] != [group["params"] for group in two["param_groups"]])}
    for index, state in one["state"].items():
        for key, value in state.items():
            other = two["state"].get(index, {}).get(key)
            differs[f"{index}.{key}"] = float(other is None or not torch.equal(value, other))
    return differs


def compare_files(reference, program, table, case):
    """Its file -> import -> duoflow goes on; -> export -> its strict load takes it and its program goes on."""
    comparison = Comparison(reference, program, case)
    result = comparison.first_step()[3]
    given = checkout_step.duoflow_batch(case, result, comparison.drawn, case.config())
    file = comparison.steps("before", comparison.start, BEFORE)[2]
    rows, trained, _ = comparison.steps("after", file, AFTER, resume=True)
    imported, aside = comparison.folder / "imported", comparison.folder / "aside.safetensors"
    options = [f"training.perceptual_weights={vgg19(program)}"] if case.perceptual else []
    program("import", file, imported, "--config", comparison.yaml, "--set-aside", aside, *options)
    _, ours, parameters = comparison.duoflow(imported, given, AFTER)
    compare_trajectory(table, comparison, f"import after {BEFORE} steps, {AFTER} more", ours, rows)
    table.compare(case.name, "parameters (absolute)", parameters, trained, tolerance.PARAMETERS, tolerance.absolute)

    back = comparison.folder / "exported" / file.name
    program("export", imported, back, "--format", "reference", *(["--set-aside", aside] if aside.exists() else []))
    whole, original = load(back), load(file)
    comparison.model().load_state_dict(whole["model"], strict=True)
    same = {name: 0.0 if torch.equal(value, whole["model"][name]) else 1.0 for name, value in original["model"].items()}
    networks = sum(name.startswith("loss_computer.") for name in same)
    table.add(case.name, f"export, strict load; the model's bits, {networks} tensors of loss networks", same, 0)
    table.add(case.name, "export, optimizer's bits", same_state(original["optimizer"], whole["optimizer"]), 0)
    again, resumed, _ = comparison.steps("again", back, AFTER, resume=True)
    compare_trajectory(table, comparison, f"export, its program goes on {AFTER}", again, rows)
    table.compare(case.name, "export, parameters (absolute)", resumed, trained, tolerance.PARAMETERS, tolerance.absolute)
