#!/usr/bin/env python3
"""duoflow against the LVSM family's own code, in fp32 on a CPU: its classes, its training programs, its checkpoints, its data path.

    python tests/launch/reference/against_checkout.py --reference CHECKOUT [--only TEXT] [--scenes FOLDER]

CHECKOUT is an unpacked copy of the public repository yiwenchen1999/LVSMExp (2a591a7b is what the tolerances were set with);
nothing of it is in this tree. Python needs what is in duoflow's .venv (launch/setup.sh --full) and einops, easydict, omegaconf,
scipy, rich, jaxtyping, scikit-image, opencv-python-headless, imageio, transformers, lpips, torchvision.
$DUOFLOW_BINARY names the program (default build/duoflow). What is replaced around the checkout's code is said in
checkout_environment.py, checkout_loop.py and checkout_cases.py: attention kernel, accounts, downloads, data loader, random numbers.
LPIPS needs the weights of launch/setup.sh --perceptual (.cache/weights, or $DUOFLOW_WEIGHTS).

Prints a table of largest differences; ends with 1 if one exceeds its tolerance.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[3]


class Program:
    """duoflow, and the folder its files go to."""

    def __init__(self, scratch):
        self.path = pathlib.Path(os.environ.get("DUOFLOW_BINARY", SOURCE / "build" / "duoflow")).resolve()
        self.scratch = scratch

    def __call__(self, *arguments, code=0):
        done = subprocess.run([self.path, *map(str, arguments)], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode != code:
            raise RuntimeError(f"duoflow {' '.join(map(str, arguments))} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stderr

    def step(self, config, weights, batch, steps, *overrides):
        from safetensors.torch import load_file, save_file

        given, out = self.scratch / "batch.safetensors", self.scratch / "out.safetensors"
        save_file(batch, given)
        self("step", "--config", config, "--weights", weights, "--batch", given, "--out", out, "--steps", steps,
             "dist.threads=1", *overrides)
        return load_file(out)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, type=pathlib.Path, help="folder of the checkout")
    parser.add_argument("--only", default="", help="cases whose name holds this text; also: control, data path, configs")
    parser.add_argument("--scenes", type=pathlib.Path, help="folder of LVSM scenes (train/, test/) for the data path")
    parser.add_argument("--scratch", type=pathlib.Path, help="folder for files, kept (default: a temporary one)")
    return parser.parse_args()


def main():
    arguments = parse()
    if not (arguments.reference / "model").is_dir():
        sys.exit(f"{arguments.reference} has no folder model; give a checkout of LVSMExp")
    arguments.reference = arguments.reference.resolve()
    with tempfile.TemporaryDirectory(prefix="duoflow-checkout-") as temporary:
        scratch = (arguments.scratch or pathlib.Path(temporary)).resolve()
        scratch.mkdir(parents=True, exist_ok=True)
        from checkout_environment import prepare

        weights = pathlib.Path(os.environ.get("DUOFLOW_WEIGHTS", SOURCE / ".cache" / "weights")) / "lpips_vgg16.safetensors"
        prepare(arguments.reference, scratch, weights)
        from checkout_cases import CASES, CHECKPOINTS
        from checkout_parts import compare_files, compare_steps
        from parity_table import Table

        table, program = Table(), Program(scratch)
        for compare, cases in ((compare_steps, CASES), (compare_files, CHECKPOINTS)):
            for case in cases:
                if arguments.only in case.name:
                    compare(arguments.reference, program, table, case)
        if arguments.only in "control":
            import checkout_controls

            checkout_controls.compare(arguments.reference, program, table)
        if arguments.scenes and arguments.only in "data path":
            import checkout_data
            import checkout_edits
            import checkout_init

            folder, checkpoint = checkout_data.compare(program, table, arguments.scenes.resolve())
            checkout_edits.compare(program, table, folder)
            checkout_init.compare(program, table, folder, checkpoint)
        if arguments.only in "configs":
            import checkout_configs

            checkout_configs.compare(arguments.reference, program, table)
    print(f"\n{table.failed} of {table.lines} lines exceed their tolerance")
    sys.exit(table.failed > 0)


if __name__ == "__main__":
    main()
