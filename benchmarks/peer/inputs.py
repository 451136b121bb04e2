"""What both programs are given: pairs made by duoflow, an effective config, weights, and duoflow's first steps on a batch. And how
they are started."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

import torch
import yaml

import agreement
import networks  # also puts the twin on the path
import pairs
import tensor_file
import training
import twin

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("DUOFLOW_BINARY", SOURCE / "build" / "duoflow"))
ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1"}

# Views and lights are few: the shapes of a step do not depend on how many there are.
VIEWS = ["training.num_input_views=4", "data.input_frames=0-3", "data.target_frames=4-15", "data.exclude_lights="]
ONE_STEP = ["training.train_steps=1", "training.batch_size_per_gpu=1", "training.global_batch_size=1", "training.init_from="]
SAME = ["dist.threads=1", "training.allowed_gradnorm_factor=0"]  # random weights: no step is to be skipped for its norm


class ProgramFailed(Exception):
    def __init__(self, command, done, why=""):
        self.done = done
        super().__init__(f"{why}exit code {done.returncode}: {' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-2000:]}")


def run(*command, timeout=1200, environment=None):
    """Its standard output; ProgramFailed with what it said."""
    command = [str(word) for word in command]
    done = subprocess.run(command, env=ENVIRONMENT | (environment or {}), capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise ProgramFailed(command, done)
    return done.stdout


def duoflow(*arguments):
    return run(PROGRAM, *arguments)


def given(config, overrides, key, otherwise=None):
    """The value that the file or an override gives to a key; `otherwise` where neither does, if it is not None."""
    words = [word.split("=", 1)[1] for word in overrides if word.startswith(f"{key}=")]
    if words:
        return yaml.safe_load(words[-1])
    values = yaml.safe_load(pathlib.Path(config).read_text())
    return training.value_at(values, key, otherwise)


def make_pairs(folder, config, overrides, samples):
    """Scenes, a reconstructor of one step and its pairs under `folder`, unless they are there. At least `samples` pairs."""
    if (folder / "pairs" / "manifest.json").exists():
        return
    lights = next(n for n in range(2, 100) if n * (n - 1) >= samples)
    duoflow("synth", "--out", folder / "scenes", "--objects", 1, "--lights", lights, "--views", 16, "--spp", 1,
            "--size", given(config, overrides, "model.image_tokenizer.image_size"),
            "--env-height", given(config, overrides, "model.env_tokenizer.image_size"))
    duoflow("train", "--config", config, "--data", folder / "scenes", "--run", folder / "stage1", "--resume", "never", *overrides,
            *ONE_STEP, "objective=reconstruction", "training.num_target_views=1")
    duoflow("encode", "--checkpoint", folder / "stage1", "--data", folder / "scenes", "--out", folder / "pairs", "--dtype", "f32")


def effective_config(config, data, run_folder, overrides):
    """The config with every key written out, as a run of one step leaves it; batch sizes are the caller's to set."""
    shutil.rmtree(run_folder, ignore_errors=True)
    duoflow("train", "--config", config, "--data", data, "--run", run_folder, "--resume", "never", *overrides, *ONE_STEP,
            "data.allow_other_producer=true")
    effective = yaml.safe_load((run_folder / "config.yaml").read_text())
    effective["training"]["train_steps"] = given(config, overrides, "training.train_steps")
    return effective


def latest_model(run_folder):
    step = (run_folder / "checkpoints" / "latest").read_text().strip()
    found = {}
    for path in (run_folder / "checkpoints" / step).glob("model-*.safetensors"):
        found |= tensor_file.load(path)
    return found


def write_weights(path, config, stage1, pair_folder):
    """The reconstructor and renderer that made the pairs, their latent statistics, and an editor drawn at random: at its
    initial values most of its gradients are zero."""
    editor = twin.random_weights(networks.Networks(training.model_options(config)), torch.Generator().manual_seed(5))
    fixed = latest_model(stage1) | pairs.latent_statistics(pair_folder)
    weights = {key: value if key.startswith(training.TRAINED) else fixed[key] for key, value in editor.items()}
    tensor_file.save(weights, path)


def write_reference(path, config_file, weights, pair_folder):
    """duoflow's first steps on the batch that the peer reads from the pairs."""
    config = yaml.safe_load(pathlib.Path(config_file).read_text())
    batch = pairs.read_batch(pair_folder, config["training"]["global_batch_size"], config["training"]["num_target_views"],
                             training.model_options(config).env_height)
    batch_file = path.with_suffix(".batch")
    tensor_file.save(batch, batch_file)
    duoflow("step", "--config", config_file, "--weights", weights, "--batch", batch_file, "--out", path, "--steps", agreement.STEPS)
    batch_file.unlink()


def launch_line(ranks, *command):
    """Both programs start alike. (torchrun would give every rank a session of its own, which Linux schedules apart.)"""
    return ["mpirun", "--quiet", "--oversubscribe", "--bind-to", "none", "-n", ranks, *command] if ranks > 1 else command


PEER = sys.executable, SOURCE / "benchmarks" / "peer" / "peer.py"


def compiled_in(folder):
    """Where torch.compile keeps what it has compiled."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(folder)} if folder else {}


def peer(ranks, *arguments, cache=None):
    """What the peer printed, as a dict."""
    with tempfile.TemporaryDirectory(prefix="duoflow-peer-") as folder:
        out = run(*launch_line(ranks, *PEER, *arguments, "--rendezvous", f"{folder}/ranks"), environment=compiled_in(cache))
    return json.loads(out.splitlines()[-1])


class StayingPeer:
    """One that waits between turns, with what it has compiled; of one rank. ProgramFailed where it is not ready in time."""

    def __init__(self, *arguments, cache=None, start_limit_s=1200):
        self.command = [str(word) for word in (*PEER, *arguments, "--stay")]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(self.command, env=ENVIRONMENT | compiled_in(cache), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True)
        late = threading.Timer(start_limit_s, self.process.kill)
        late.start()
        try:
            self.answer()
        except ProgramFailed as failure:
            self.close()
            if late.finished.is_set():
                raise ProgramFailed(self.command, failure.done, f"not ready after {start_limit_s} s: ") from failure
            raise
        finally:
            late.cancel()

    def answer(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.errors.seek(0)
        raise ProgramFailed(self.command, subprocess.CompletedProcess(self.command, self.process.wait(), "", self.errors.read()))

    def turn(self):
        with contextlib.suppress(BrokenPipeError):  # answer() says what became of it
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        return self.answer()

    def close(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()


def processor():
    with open("/proc/cpuinfo") as cpuinfo:
        return next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
