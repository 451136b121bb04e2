"""The file of runs: what is trained, on which pairs, with which seeds, and where a run's results lie.

    config = "configs/quickstart_joint.yaml"     of every run; paths are relative to the repository
    init = "runs/quickstart/stage1"              training.init_from
    train = "runs/quickstart/train_pairs"        pair shards
    baseline = "normalized"                      what the table compares with, seed by seed
    seeds = [1, 2, 3]
    steps = [1, 4]                               solver steps that are evaluated
    lpips = false                                true: evaluated too, where the weights are (slow on CPUs)
    overrides = ["training.train_steps=600"]     of every run
    [tests]
    lights = "runs/quickstart/test_pairs"        pair shards, each evaluated by itself
    [runs]                                       name = overrides of it
    render_only = ["flow_matching.velocity_loss_weight=0"]

`flow_matching.` at the start of an override stands for `model.transformer.editor.flow_matching.`.
"""

import dataclasses
import json
import pathlib
import tomllib

SOURCE = pathlib.Path(__file__).resolve().parents[2]
KEYS = {"config", "init", "train", "baseline", "seeds", "steps", "lpips", "overrides", "tests", "runs"}
OPTIONAL = {"lpips": False, "overrides": []}


@dataclasses.dataclass(frozen=True)
class Run:
    name: str
    seed: int
    folder: pathlib.Path
    overrides: list

    @property
    def result(self):
        return self.folder / "result.json"

    def read_result(self):
        """None while the run is not complete."""
        return json.loads(self.result.read_text()) if self.result.exists() else None


class Plan:
    def __init__(self, path, work):
        self.path = pathlib.Path(path)
        entries = OPTIONAL | tomllib.loads(self.path.read_text())
        if entries.keys() != KEYS:
            raise SystemExit(f"{path}: unknown keys {sorted(entries.keys() - KEYS)}, missing keys {sorted(KEYS - entries.keys())}")
        self.__dict__.update(entries)
        if self.baseline not in entries["runs"]:
            raise SystemExit(f"{path}: baseline '{self.baseline}' is none of the runs {', '.join(entries['runs'])}")
        self.work = pathlib.Path(work).resolve()  # the program runs in the repository
        own = lambda words: [w.replace("flow_matching.", "model.transformer.editor.flow_matching.", 1)
                             if w.startswith("flow_matching.") else w for w in words]
        # Seeds outermost: a plan that is stopped half way has whole comparisons.
        self.runs = [Run(name, seed, self.work / f"{name}-seed{seed}", own(self.overrides) + own(words) + [f"training.seed={seed}"])
                     for seed in self.seeds for name, words in entries["runs"].items()]

    @property
    def names(self):
        return list(dict.fromkeys(run.name for run in self.runs))

    def results(self, name):
        """{seed: result} of the complete runs of this name."""
        return {run.seed: run.read_result() for run in self.runs if run.name == name and run.result.exists()}
