"""Golden values of tests/dist/sharded_adamw_test.cpp: torch's AdamW and clip_grad_norm_ on 40 elements, five steps.

The inputs are small closed forms of the element and the step, so the C++ side makes the same ones.
Run from the repository root: .venv/bin/python tests/golden/make_adamw.py
"""

import json
import pathlib

import torch

STEPS, DECAYED, PLAIN, MAX_NORM = 5, 24, 16, 1.5


def gradient(step: int, first: int, count: int) -> torch.Tensor:
    index = torch.arange(first, first + count, dtype=torch.float64)
    return (((index * 7 + step * 5) % 11 - 5) / 8 * step).float()


def main() -> None:
    parameter = ((torch.arange(DECAYED + PLAIN, dtype=torch.float64) % 9 - 4) / 4).float()
    decayed = torch.nn.Parameter(parameter[:DECAYED].clone())
    plain = torch.nn.Parameter(parameter[DECAYED:].clone())
    groups = [{"params": [decayed], "weight_decay": 0.1}, {"params": [plain], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-8, fused=False, foreach=False)
    trajectory, norms = [], []
    for step in range(1, STEPS + 1):
        decayed.grad = gradient(step, 0, DECAYED)
        plain.grad = gradient(step, DECAYED, PLAIN)
        norms.append(torch.nn.utils.clip_grad_norm_([decayed, plain], MAX_NORM).item())
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 0.01 / step
        optimizer.step()
        trajectory.append(decayed.tolist() + plain.tolist())
    golden = {
        "magic": "duoflow-adamw", "version": 1, "torch": torch.__version__,
        "max_norm": MAX_NORM, "norm_before_clip": norms, "parameters_after_step": trajectory,
    }
    text = json.dumps(golden, indent=1)
    pathlib.Path(__file__).with_name("adamw.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
