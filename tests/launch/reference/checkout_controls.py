"""Small faults put into duoflow's side on purpose: a comparison that does not notice them would prove nothing."""

import dataclasses

import torch

from checkout_cases import CASES
from checkout_parts import compare_steps
from parity_table import Table

# What is wrong, overrides of duoflow's config, whether one weight of the renderer is moved by a thousandth.
FAULTS = [
    ("beta2 0.951", ["training.beta2=0.951"], False),
    ("weight decay 0.06", ["training.weight_decay=0.06"], False),
    ("warm-up of 5", ["training.warmup=5"], False),
    ("velocity weight 2.0001", ["training.flow_loss_weight=2.0001"], False),
    ("a weight of the renderer + 0.001", [], True),
]


class Spoilt:
    """duoflow with a fault."""

    def __init__(self, program, overrides, weight_moved):
        self.program, self.overrides, self.weight_moved = program, overrides, weight_moved
        self.scratch = program.scratch

    def __call__(self, *arguments):
        return self.program(*arguments)

    def step(self, config, weights, batch, steps, *overrides):
        if self.weight_moved:
            state = torch.load(weights, weights_only=True)
            state["model"]["transformer_decoder.1.mlp.mlp.0.weight"][3, 5] += 1e-3
            weights = self.scratch / "spoilt.pt"
            torch.save(state, weights)
        return self.program.step(config, weights, batch, steps, *overrides, *self.overrides)


def compare(reference, program, table):
    case = next(case for case in CASES if "ends frozen, a map a view" in case.name)
    for fault, overrides, weight_moved in FAULTS:
        inner = Table(quiet=True)
        compare_steps(reference, Spoilt(program, overrides, weight_moved), inner, dataclasses.replace(case, name=f"control {fault}"))
        table.add("control", f"{fault}: noticed in {', '.join(inner.noticed)}", {"": float(not inner.noticed)}, 0)
