"""Writes reference_checkpoint.pt, a checkpoint in the LVSM family's form as torch.save writes it, for
tests/model/reference_checkpoint.

    .venv/bin/python tests/golden/make_reference_checkpoint.py
"""

import functools
import pathlib

import torch


def rate(half_life, step):
    return 0.5 ** (step / half_life)


def main():
    torch.manual_seed(3)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW([{"params": [layer.weight], "weight_decay": 0.05}, {"params": [layer.bias], "weight_decay": 0.0}],
                                  lr=0.5, betas=(0.9, 0.95), fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, functools.partial(rate, 4))
    for skip in (False, True, False):
        layer(torch.ones(1, 3)).sum().backward()
        if not skip:
            optimizer.step()
        scheduler.step()
    model = layer.state_dict()
    model["noise_scale_ema"] = torch.tensor(0.5)
    model["half"], model["brain"] = torch.arange(4).half(), torch.arange(3).bfloat16()
    six = torch.arange(6.0)
    model["transposed"], model["part"] = six.view(2, 3).t(), six[4:]
    model["count"] = torch.tensor(7)
    content = {"model": model, "optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict(),
               "fwdbwd_pass_step": 6, "param_update_step": 2}
    torch.save(content, pathlib.Path(__file__).parent / "reference_checkpoint.pt")


if __name__ == "__main__":
    main()
