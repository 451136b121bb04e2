"""What the end-to-end tests share: the program under test, mpirun, a small data set with a trained reconstructor, and
readers of what a run leaves behind.

DUOFLOW_BINARY names the program (default: build/duoflow). DUOFLOW_E2E_DATA names a folder where `python common.py` has
made the samples; without it every test process makes its own.
"""

import atexit
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[3]
PROGRAM = pathlib.Path(os.environ.get("DUOFLOW_BINARY", SOURCE / "build" / "duoflow")).resolve()
REAL_SCENES = SOURCE.parent / "shared" / "data" / "lvsm_scenes"

# Ranks bound to the same first cores would spin there while other tests run.
ENVIRONMENT = os.environ | {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "DUOFLOW_WEIGHTS": "/nowhere",  # LPIPS where a test asks for it, not where a machine happens to have its networks
}

CONFIG = """
objective: {objective}
model:
  image_tokenizer: {{image_size: 16, patch_size: 8}}
  env_tokenizer: {{image_size: 16}}
  transformer:
    d: 32
    d_head: 16
    encoder_n_layer: 1
    decoder_n_layer: 1
    n_latent_vectors: 8
    editor:
      n_layer: 2
      flow_matching: {{weighting: fixed}}
training:
  batch_size_per_gpu: 12
  global_batch_size: 12
  lr: 1.0e-3
  warmup: 0
  scheduler_type: constant
  train_steps: 3
  num_input_views: 2
  num_target_views: 2
  print_every: 1
dist: {{threads: 1, device: cpu}}
"""
WEIGHTING = "model.transformer.editor.flow_matching.weighting"

# What may differ between identical runs (with `slowest_rank`, which is a measurement too).
MEASURED = {"step_ms", "data_wait_ms", "comm_wait_ms", "samples_per_s", "gpu_mem_mib", "slowest_rank"}


class Outcome:
    """How a launch ended: exit code, both streams, and the program's own error messages."""

    def __init__(self, command, code, out, err):
        self.command, self.code, self.out, self.err = command, code, out, err

    def __str__(self):
        return f"exit code {self.code}: {' '.join(map(str, self.command))}\n{self.out[-2000:]}{self.err[-4000:]}"

    @property
    def errors(self):
        return [line for line in self.err.splitlines() if line.startswith("duoflow: ")]


def needs_program():
    """For setUpModule: a machine without the program or an MPI launcher skips, with the reason."""
    if not os.access(PROGRAM, os.X_OK):
        raise unittest.SkipTest(f"{PROGRAM} is not there: build it, or name it in DUOFLOW_BINARY")
    if not shutil.which("mpirun"):
        raise unittest.SkipTest("mpirun is not there: install Open MPI")


def command_line(ranks, arguments):
    prefix = ["mpirun", "-n", str(ranks)] if ranks else []  # 0: without mpirun
    return prefix + [str(PROGRAM)] + [str(argument) for argument in arguments]


def launch(ranks, *arguments, code=0, timeout=150, environment=None):
    """Runs to the end; AssertionError with everything it said unless the exit code is `code` (None: any)."""
    return run_command(command_line(ranks, arguments), code, timeout, environment)


def launch_apart(per_rank, code=0, timeout=150, folders=None):
    """launch() of ranks that have an own command line each, in one job; `folders`: the working directory of each."""
    folders = [["-wdir", str(folder)] for folder in folders] if folders else [[]] * len(per_rank)
    lines = [["-n", "1", *folder, *command_line(0, arguments)] for folder, arguments in zip(folders, per_rank, strict=True)]
    return run_command(["mpirun", *lines[0], *(word for line in lines[1:] for word in (":", *line))], code, timeout)


def run_command(command, code, timeout, environment=None):
    done = subprocess.run(command, env=ENVIRONMENT | (environment or {}), capture_output=True, text=True,
                          errors="replace", timeout=timeout)
    outcome = Outcome(command, done.returncode, done.stdout, done.stderr)
    if code is not None and outcome.code != code:
        raise AssertionError(f"exit code {code} expected\n{outcome}")
    return outcome


class Job:
    """A launch that goes on while the test looks at it. Leaving the `with` block ends it, ranks included."""

    def __init__(self, ranks, *arguments):
        self.command = command_line(ranks, arguments)
        self.log = tempfile.TemporaryFile(mode="w+", errors="replace")
        self.process = subprocess.Popen(self.command, env=ENVIRONMENT, stdout=self.log, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.log.close()

    def ranks(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        return [pid for pid in pids if os.path.exists(f"/proc/{pid}") and os.path.samefile(f"/proc/{pid}/exe", PROGRAM)]

    def kill(self):
        """kill -9 of the ranks and of mpirun."""
        if self.process.poll() is None:
            for pid in [*self.ranks(), self.process.pid]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.process.wait()

    def outcome(self, timeout=150):
        code = self.process.wait(timeout)
        self.log.seek(0)
        return Outcome(self.command, code, "", self.log.read())

    def wait_until(self, condition, what, timeout=150):
        deadline = time.monotonic() + timeout
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{what} was not seen\n{self.outcome()}")
            time.sleep(0.005)


def make_samples(folder):
    """scenes/ (2 objects x 5 lights x 6 views of 16 px), stage1/ (a run), pairs/ (encoded by it), two configs."""
    folder.mkdir(parents=True)
    for objective in ("reconstruction", "joint"):
        (folder / f"{objective}.yaml").write_text(CONFIG.format(objective=objective))
    launch(0, "synth", "--out", folder / "scenes", "--size", 16, "--views", 6, "--lights", 5, "--objects", 2, "--spp", 8, "--env-height", 16)
    launch(0, "train", "--config", folder / "reconstruction.yaml", "--data", folder / "scenes", "--run", folder / "stage1",
           "training.train_steps=60", "training.lr=3e-3", "training.print_every=20")
    launch(0, "encode", "--checkpoint", folder / "stage1", "--data", folder / "scenes", "--out", folder / "pairs")


@functools.cache
def samples():
    """Where make_samples has written; read-only for the tests."""
    given = os.environ.get("DUOFLOW_E2E_DATA")
    if given and (pathlib.Path(given) / "pairs" / "manifest.json").exists():
        return pathlib.Path(given)
    scratch = tempfile.TemporaryDirectory(prefix="duoflow-samples-")
    atexit.register(scratch.cleanup)
    make_samples(pathlib.Path(scratch.name) / "samples")
    return pathlib.Path(scratch.name) / "samples"


def train_arguments(objective, run, *overrides, data=None, resume="auto"):
    """The command line of a training run on the samples; joint starts from stage 1 with normalized weights."""
    arguments = ["train", "--config", samples() / f"{objective}.yaml", "--run", run, "--resume", resume]
    arguments += ["--data", data or samples() / {"joint": "pairs", "reconstruction": "scenes"}[objective]]
    if objective == "joint":
        arguments += [f"training.init_from={samples() / 'stage1'}", f"{WEIGHTING}=normalized"]
    return [*arguments, *overrides]


def metrics(run):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]  # a running job may be in the middle of the last one


def checkpoint_steps(run):
    """Steps of the complete checkpoints, in order."""
    names = [path.parent.name for path in (run / "checkpoints").glob("step_*/manifest.json")]
    return sorted(int(name.removeprefix("step_")) for name in names if ".tmp-" not in name)


def checkpoint(run, step=None):
    return run / "checkpoints" / f"step_{checkpoint_steps(run)[-1] if step is None else step:09d}"


def tensors(folder, part="*"):
    """Every tensor of a checkpoint's `model` or `state` files, by the safetensors package."""
    from safetensors.numpy import load_file

    found = {}
    for path in sorted(folder.glob(f"{part}-*.safetensors")):
        found |= load_file(path)
    assert found, f"no tensors in {folder}"
    return found


def picture(path):
    """A picture's pixels as an array [H,W,C], by Pillow."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


class EndToEndTest(unittest.TestCase):
    """A test case with a scratch folder of its own in `self.folder`."""

    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory(prefix="duoflow-e2e-")
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = pathlib.Path(scratch.name)

    def copy_of(self, name):
        """A copy of samples()/name that the test may damage."""
        target = self.folder / f"{self._testMethodName}-{name}"
        shutil.copytree(samples() / name, target)
        return target


if __name__ == "__main__":
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    make_samples(pathlib.Path(sys.argv[1]))
