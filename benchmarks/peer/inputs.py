"""What both programs are given: pairs made by duoflow, an effective config, weights, and duoflow's first steps on a batch."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import safetensors.torch
import torch
import yaml

import agreement
import networks  # also puts the twin on the path
import pairs
import training
from make_model import random_weights

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("DUOFLOW_BINARY", SOURCE / "build" / "duoflow"))
ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1"}

# Views and lights are few: the shapes of a step do not depend on how many there are.
VIEWS = ["training.num_input_views=4", "data.input_frames=0-3", "data.target_frames=4-15", "data.exclude_lights="]
ONE_STEP = ["training.train_steps=1", "training.batch_size_per_gpu=1", "training.global_batch_size=1", "training.init_from="]
SAME = ["dist.threads=1", "training.allowed_gradnorm_factor=0"]  # random weights: no step is to be skipped for its norm


class ProgramFailed(Exception):
    def __init__(self, command, done):
        super().__init__(f"exit code {done.returncode}: {' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-2000:]}")


def run(*command, timeout=1200, environment=None):
    """Its standard output; ProgramFailed with what it said."""
    command = [str(word) for word in command]
    done = subprocess.run(command, env=ENVIRONMENT | (environment or {}), capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise ProgramFailed(command, done)
    return done.stdout


def duoflow(*arguments):
    return run(PROGRAM, *arguments)


def given(config, overrides, key):
    """The value that the file or an override gives to a key."""
    words = [word.split("=", 1)[1] for word in overrides if word.startswith(f"{key}=")]
    return yaml.safe_load(words[-1]) if words else training.value_at(yaml.safe_load(pathlib.Path(config).read_text()), key)


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
        found |= safetensors.torch.load_file(path)
    return found


def write_weights(path, config, stage1, pair_folder):
    """The reconstructor and renderer that made the pairs, their latent statistics, and an editor drawn at random: at its
    initial values most of its gradients are zero."""
    editor = random_weights(networks.Networks(training.model_options(config)), torch.Generator().manual_seed(5))
    fixed = latest_model(stage1) | pairs.latent_statistics(pair_folder)
    weights = {key: value if key.startswith(training.TRAINED) else fixed[key] for key, value in editor.items()}
    safetensors.torch.save_file({key: value.contiguous() for key, value in weights.items()}, path)


def write_reference(path, config_file, weights, pair_folder):
    """duoflow's first steps on the batch that the peer reads from the pairs."""
    config = yaml.safe_load(pathlib.Path(config_file).read_text())
    batch = pairs.read_batch(pair_folder, config["training"]["global_batch_size"], config["training"]["num_target_views"],
                             training.model_options(config).env_height)
    batch_file = path.with_suffix(".batch")
    safetensors.torch.save_file(batch, batch_file)
    duoflow("step", "--config", config_file, "--weights", weights, "--batch", batch_file, "--out", path, "--steps", agreement.STEPS)
    batch_file.unlink()


def mpirun(ranks, *command, environment=None):
    """Both programs start alike. (torchrun would give every rank a session of its own, which Linux schedules apart.)"""
    return run("mpirun", "--quiet", "--oversubscribe", "--bind-to", "none", "-n", ranks, *command, environment=environment)


def peer(ranks, *arguments, cache=None):
    """What the peer printed, as a dict. cache: where torch.compile keeps what it has compiled."""
    program = SOURCE / ".venv" / "bin" / "python", SOURCE / "benchmarks" / "peer" / "peer.py"
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(cache)} if cache else {}
    with tempfile.TemporaryDirectory(prefix="duoflow-peer-") as folder:
        out = mpirun(ranks, *program, *arguments, "--rendezvous", f"{folder}/ranks", environment=environment)
    return json.loads(out.splitlines()[-1])


def processor():
    with open("/proc/cpuinfo") as cpuinfo:
        return next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
