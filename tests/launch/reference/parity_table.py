"""Measured differences beside what another fp32 implementation needs, as a table."""

import torch

ACTIVATIONS, LOSSES, GRADIENTS, PARAMETERS, TRAJECTORY = 5e-6, 1e-6, 3e-5, 1e-5, 5e-6


def relative(value, expected):
    """max|d| / max|expected|, in double precision; infinite where the shapes differ or something is not finite."""
    if value is None or tuple(value.shape) != tuple(expected.shape):
        return float("inf")
    value, expected = value.detach().double(), expected.detach().double()
    error = ((value - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()
    return error if error == error else float("inf")


def absolute(value, expected):
    if value is None or tuple(value.shape) != tuple(expected.shape):
        return float("inf")
    error = (value.detach().double() - expected.detach().double()).abs().max().item()
    return error if error == error else float("inf")


class Table:
    def __init__(self, quiet=False):
        self.lines = self.failed = 0
        self.quiet, self.noticed = quiet, []  # quantities beyond their tolerance
        self.say("| variant | quantity | compared | max error | tolerance | worst |", "|---|---|---|---|---|---|")

    def say(self, *lines):
        if not self.quiet:
            print(*lines, sep="\n", flush=True)

    def add(self, variant, quantity, errors, tolerance):
        """errors: {tensor: error}. Nothing compared is a failure."""
        worst = max(errors, key=errors.get) if errors else "nothing to compare"
        error = errors.get(worst, float("inf"))
        passed = error <= tolerance
        self.failed += not passed
        self.lines += 1
        self.noticed += [] if passed else [quantity]
        mark = "" if passed else " **exceeds**"
        self.say(f"| {variant} | {quantity} | {len(errors)} | {error:.1e}{mark} | {tolerance:.0e} | {worst} |")

    def compare(self, variant, quantity, values, expected, tolerance, distance=relative):
        """Everything in `expected` must be in `values`."""
        self.add(variant, quantity, {name: distance(values.get(name), tensor) for name, tensor in expected.items()}, tolerance)

    def note(self, variant, quantity, numbers):
        self.say(f"| {variant} | {quantity} | | {', '.join(f'{number:.1e}' for number in numbers)} | - | |")

    def distances(self, ours, theirs, columns):
        """Each step's number relative to itself: the worst step of each column."""
        names = ("total loss", "velocity loss", "render loss", "norm")
        errors = {}
        for column in columns:
            distance = (ours[:, column].double() - theirs[:, column].double()).abs() / theirs[:, column].double().abs().clamp_min(1e-30)
            step = int(torch.argmax(distance))
            errors[f"{names[column]}, step {step}"] = distance[step].item() if torch.isfinite(distance).all() else float("inf")
        return errors

    def trajectory(self, variant, quantity, ours, theirs, columns, allowed=TRAJECTORY):
        self.add(variant, quantity, self.distances(ours, theirs, columns), allowed)
