#!/usr/bin/env python3
"""Means and deviations over the seeds of a file of runs, differences to its baseline seed by seed, and a picture.

    benchmarks/ablation/table.py benchmarks/ablation/synth.toml [--work DIR] [--plot FILE.svg]

Works on what is complete; n says how many seeds that is. The interval of a difference is Student's, 95 %, over seeds: with three
of them it is wide, and says so.
"""

import argparse
import math
import pathlib
import statistics

import plot
import runs

# Two-sided 95 % quantiles of Student's t by degrees of freedom 1..10.
STUDENT = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228]


def edit_psnr(result, test, steps):
    """Masked where the pairs have a foreground."""
    (line,) = [line for line in result["tests"][test]["sweep"] if line["steps"] == steps]
    return line["psnr"] if line["psnr_masked"] is None else line["psnr_masked"]


def shuffled_psnr(metrics):
    """None: no pair of the set has another light to be edited under."""
    masked = metrics["shuffled_light_psnr_masked"]
    return metrics["shuffled_light_psnr"] if masked is None else masked


def one_line(plan, result):
    return "  ".join(f"{test} " + " ".join(f"{steps}: {edit_psnr(result, test, steps):.2f}" for steps in plan.steps)
                     for test in plan.tests) + " dB"


def spread(values):
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def difference(values, base):
    """Mean of the differences of equal seeds with its 95 % interval; '' where there are none."""
    both = [values[seed] - base[seed] for seed in values if seed in base]
    if len(both) < 2:
        return f"{both[0]:+.2f}" if both else ""
    half = STUDENT[min(len(both) - 1, len(STUDENT)) - 1] * statistics.stdev(both) / math.sqrt(len(both))
    return f"{statistics.mean(both):+.2f} ({statistics.mean(both) - half:+.2f} to {statistics.mean(both) + half:+.2f})"


def values_of(plan, name, test, steps):
    return {seed: edit_psnr(result, test, steps) for seed, result in plan.results(name).items()}


def references(plan, test):
    """Answers that do not depend on the run."""
    for name in plan.names:
        for result in plan.results(name).values():
            metrics = result["tests"][test]
            masked = "psnr" if metrics["psnr_masked"] is None else "psnr_masked"
            return {answer: metrics.get(f"{answer}_{masked}") for answer in ("no_edit", "mean_light", "oracle")}
    return {}


def mean_training(plan, name, key):
    values = [r["training"][key] for r in plan.results(name).values() if r["training"].get(key) is not None]
    return f"{statistics.mean(values):.3g}" if values else "-"


def markdown(plan):
    lines = []
    for test in plan.tests:
        lines += [f"PSNR of the edit on `{test}`, dB", ""]
        heads = [f"{steps} step{'s' if steps > 1 else ''}" for steps in plan.steps]
        lines.append("| run | n | " + " | ".join(heads) + " | " + " | ".join(f"less {plan.baseline}, {h}" for h in heads) + " | shuffled light | grad ratio | cosine |")
        lines.append("|---|---|" + "---|" * (2 * len(heads) + 3))
        for name in plan.names:
            if not (done := plan.results(name)):
                continue
            by_steps = [values_of(plan, name, test, steps) for steps in plan.steps]
            base = [values_of(plan, plan.baseline, test, steps) for steps in plan.steps]
            shuffled = [value for r in done.values() if (value := shuffled_psnr(r["tests"][test])) is not None]
            cells = [name, str(len(done)), *(spread(list(v.values())) for v in by_steps),
                     *("" if name == plan.baseline else difference(v, b) for v, b in zip(by_steps, base)), spread(shuffled) if shuffled else "-",
                     mean_training(plan, name, "grad_ratio"), mean_training(plan, name, "grad_cosine")]
            lines.append("| " + " | ".join(cells) + " |")
        known = ", ".join(f"{answer} {value:.2f}" for answer, value in references(plan, test).items() if value is not None)
        lines += ["", f"Without editing: {known}.", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("--work")
    parser.add_argument("--plot", help="SVG of the first test set")
    options = parser.parse_args()
    plan = runs.Plan(options.plan, options.work or runs.SOURCE / "runs/ablation" / pathlib.Path(options.plan).stem)
    print(markdown(plan))
    if options.plot:
        test = next(iter(plan.tests))
        rows = {name: {steps: list(values_of(plan, name, test, steps).values()) for steps in plan.steps}
                for name in plan.names if plan.results(name)}
        pathlib.Path(options.plot).write_text(plot.dot_plot(rows, references(plan, test), f"PSNR of the edit on {test}, dB"))


if __name__ == "__main__":
    main()
