"""The family's own training programs, run as they are on one batch that never changes, from and to their own checkpoint files."""

import contextlib
import io
import pathlib
import runpy

import torch
from easydict import EasyDict

from checkout_cases import Drawn
from checkout_environment import module


class Enough(Exception):
    """The wanted number of steps is done."""


class CpuDistributed(torch.nn.parallel.DistributedDataParallel):
    """The programs name a CUDA device for DDP; a process on a CPU must not."""

    def __init__(self, net, device_ids=None, **options):
        super().__init__(net, **options)


class Loader:
    """In place of torch's DataLoader: the batch, for ever; ends the program at the first batch too many."""

    batch, left = None, 0

    def __init__(self, *_, **__):
        pass

    def __len__(self):
        return 1

    def __iter__(self):
        return self

    def __next__(self):
        if Loader.left == 0:
            raise Enough
        Loader.left -= 1
        return dict(Loader.batch)


class FixedDataset(torch.utils.data.Dataset):
    def __init__(self, config):
        self.samples = config.training.batch_size_per_gpu

    def __len__(self):
        return self.samples


def patch_programs(config):
    """What every program imports before its first statement."""
    torch.nn.parallel.DistributedDataParallel = CpuDistributed
    torch.utils.data.DataLoader = Loader
    module("fixed_batch", Dataset=FixedDataset)
    here = EasyDict(local_rank=0, global_rank=0, world_size=1, device=torch.device("cpu"), is_main_process=True, seed=777)
    module("setup", init_config=lambda: EasyDict(config), init_distributed=lambda seed=42: here, init_wandb_and_backup=lambda c: None)
    import utils.metric_utils as metrics

    metrics.visualize_intermediate_results = metrics.save_interpolated_vis_frames = lambda *a, **k: None


@contextlib.contextmanager
def recorded(class_name):
    """Losses as the model returns them and gradient norms as clipping does: what the programs log is rounded to six digits."""
    kept, steps = torch.nn.utils.clip_grad_norm_, []
    name = class_name.rsplit(".", 1)[1]
    trains = lambda net: type(net).__name__ == name and net.training

    def after(net, _, result):
        if trains(net):
            metrics = result.loss_metrics
            steps.append([metrics.loss.item(), metrics.get("flow_loss", torch.zeros(())).item(),
                          metrics.get("reconstruction_loss", metrics.loss).item(), float("nan")])

    def clip(*arguments, **options):
        norm = kept(*arguments, **options)
        steps[-1][3] = norm.item()
        return norm

    hooks = [torch.nn.modules.module.register_module_forward_pre_hook(lambda net, _: Drawn.same_targets() if trains(net) else None),
             torch.nn.modules.module.register_module_forward_hook(after)]
    torch.nn.utils.clip_grad_norm_ = clip
    try:
        yield steps
    finally:
        torch.nn.utils.clip_grad_norm_ = kept
        for hook in hooks:
            hook.remove()


def run_program(reference, case, config, batch, drawn, start, folder, steps, resume):
    """`steps` steps from the checkpoint `start`; (rows of total, velocity and render loss and norm; the checkpoint's path).

    resume: go on with its optimizer and counters, as the programs do by themselves; else only with its weights.
    """
    folder.mkdir()
    (folder / start.name).hardlink_to(start)
    counted = torch.load(start, map_location="cpu", weights_only=True)["fwdbwd_pass_step"] if resume else 0
    config["training"] |= {"checkpoint_dir": str(folder), "reset_training_state": not resume, "checkpoint_every": counted + steps,
                           "vis_interpolate": False}
    config.setdefault("loss", {})
    patch_programs(config)
    Loader.batch, Loader.left = batch, steps
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), recorded(case.class_name) as rows, drawn:
        try:
            runpy.run_path(str(pathlib.Path(reference) / case.script), run_name="__main__")
        except Enough:
            pass
        except Exception as error:
            raise RuntimeError(f"{case.script} failed ({error}); it said: {said.getvalue()[-2000:]}") from error
    written = folder / f"ckpt_{counted + steps:016}.pt"
    if not written.exists():
        raise RuntimeError(f"{case.script} wrote no {written.name}; it said: {said.getvalue()[-2000:]}")
    if resume and "Failed to load optimizer" in said.getvalue():
        raise RuntimeError(f"{case.script} refused the optimizer of {start}: {said.getvalue()[-2000:]}")
    return torch.tensor(rows, dtype=torch.float64), written
