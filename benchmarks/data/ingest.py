"""Time per image of `duoflow ingest` against a Python loader of the same scene folders, written as the LVSM family's users run it:
ingest.py [--scenes DIR] [--size PX] [--picture PX] [--repeats N] > table

The loader is a torch Dataset whose item is a scene: it lists the metadata folder, parses the scene's JSON, and per frame opens the
picture with Pillow, resizes it by Lanczos to the training size, crops the centre square, makes float32 in [0,1] and puts RGBA over
white; and opens the frame's two light maps. Run in the process ("1 core") or by a DataLoader with two workers ("2 cores"), the
family's setting. Ingest does the same work once and for all, and besides checks every checksum and camera, hashes, writes and syncs
shards. Both sides read a warm page cache; runs alternate; each table cell is the median with its least and most. The loader's start
(importing torch) is not counted; ingest is given with its start and without, which is measured by the same command on one scene.

Pictures are 512 x 512 RGBA with light maps of 512 x 256, enlarged from real path-traced scenes where those are beside the project
(--scenes), else synthetic. Needs: cmake --build build --target duoflow; numpy, Pillow and torch in .venv."""

import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("DUOFLOW_BUILD", SOURCE / "build")) / "duoflow"
OBJECTS, LIGHTS, VIEWS, ENV = 4, 5, 12, (512, 256)


class Scenes(Dataset):
    """What the LVSM family's loader does for one scene, all of its frames taken."""

    def __init__(self, root, size, patch=8):
        self.root, self.size, self.patch = root, size, patch

    def __len__(self):
        return len(os.listdir(self.root / "metadata"))

    def __getitem__(self, index):
        names = sorted(os.listdir(self.root / "metadata"))  # on every item, as there
        scene = json.loads((self.root / "metadata" / names[index]).read_text())
        images, cameras, lights = [], [], []
        for i, frame in enumerate(scene["frames"]):
            image, fxfycxcy = self.picture(frame)
            images.append(image)
            cameras.append(torch.tensor(np.linalg.inv(np.array(frame["w2c"])), dtype=torch.float32))
            for kind in "ldr", "hdr":
                path = self.root / "envmaps" / scene["scene_name"] / f"{i:05d}_{kind}.png"
                light = np.array(Image.open(path).convert("RGB")) / 255.0
                lights.append(torch.from_numpy(light).permute(2, 0, 1).float())
        return torch.stack(images), torch.stack(cameras), torch.stack(lights)

    def picture(self, frame):
        image = Image.open(frame["image_path"])
        width, height = image.size
        new_height = self.size
        new_width = int(round(new_height / height * width / self.patch) * self.patch)
        image = image.resize((new_width, new_height), resample=Image.LANCZOS)
        side = min(new_width, new_height)
        left, top = (new_width - side) // 2, (new_height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        pixels = torch.from_numpy(np.array(image) / 255.0).permute(2, 0, 1).float()
        if pixels.shape[0] == 4:
            pixels = pixels[:3] * pixels[3:] + (1 - pixels[3:])
        fx, fy, cx, cy = frame["fxfycxcy"]
        ratio_x, ratio_y = new_width / width, new_height / height
        return pixels, torch.tensor([fx * ratio_x, fy * ratio_y, cx * ratio_x - left, cy * ratio_y - top])


def load(root, size, workers):
    """Seconds and CPU seconds to load every scene once."""
    loader = DataLoader(Scenes(root, size), batch_size=None, num_workers=workers)
    began, used = time.perf_counter(), cpu()
    frames = sum(len(images) for images, _, _ in loader)
    seconds = time.perf_counter() - began
    del loader
    assert frames == OBJECTS * LIGHTS * VIEWS
    return seconds, cpu() - used


def ingest(root, size, threads, out, scenes="full_list.txt"):
    shutil.rmtree(out, ignore_errors=True)
    began, used = time.perf_counter(), cpu()
    subprocess.run([PROGRAM, "ingest", "--scenes", root / scenes, "--out", out, "--size", str(size), "--threads", str(threads)],
                   check=True, capture_output=True)
    return time.perf_counter() - began, cpu() - used


def cpu():
    return sum(getattr(resource.getrusage(who), field) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN) for field in ("ru_utime", "ru_stime"))


def make_scenes(root, real, side):
    """OBJECTS x LIGHTS scenes of VIEWS frames; pictures enlarged from real ones, with the grain that renders have."""
    numbers = np.random.default_rng(0)
    names = []
    for k in range(OBJECTS):
        for light in range(LIGHTS):
            name = f"object{k}_env_{light}"
            names.append(name)
            source = sorted((real / "images").iterdir())[12 * k + light] if real else None
            for folder in "images", "envmaps":
                (root / folder / name).mkdir(parents=True)
            frames = []
            for view in range(VIEWS):
                path = root / "images" / name / f"{view:05d}.png"
                grainy(picture(numbers, source, view, side), numbers).save(path)
                for kind in "ldr", "hdr":
                    stored = Image.open(real / "envmaps" / source.name / f"{view:05d}_{kind}.png") if real else blobs(numbers, 128, 64)
                    grainy(stored.resize(ENV, Image.LANCZOS), numbers).save(root / "envmaps" / name / f"{view:05d}_{kind}.png")
                pose = np.eye(4)
                pose[2, 3] = 2 + view
                frames.append({"image_path": str(path), "fxfycxcy": [1.3 * side, 1.3 * side, side / 2, side / 2], "w2c": pose.tolist()})
            (root / "metadata").mkdir(exist_ok=True)
            (root / "metadata" / f"{name}.json").write_text(json.dumps({"scene_name": name, "frames": frames}))
    (root / "full_list.txt").write_text("".join(f"{root}/metadata/{name}.json\n" for name in names))
    (root / "one.txt").write_text(f"{root}/metadata/{names[0]}.json\n")


def picture(numbers, source, view, side):
    if source:
        return Image.open(source / f"{view:05d}.png").resize((side, side), Image.LANCZOS)
    image = blobs(numbers, 64, 64).resize((side, side), Image.LANCZOS).convert("RGBA")
    cover = np.hypot(*np.mgrid[-1:1:side * 1j, -1:1:side * 1j]) < 0.7
    image.putalpha(Image.fromarray((255 * cover).astype(np.uint8)))
    return image


def blobs(numbers, width, height):
    return Image.fromarray(numbers.integers(0, 256, (height // 8, width // 8, 3), np.uint8)).resize((width, height), Image.LANCZOS)


def grainy(image, numbers):
    pixels = np.array(image).astype(int)
    pixels[..., :3] += numbers.integers(-2, 3, pixels.shape[:2] + (3,))
    if pixels.shape[2] == 4:
        pixels[..., :3] *= pixels[..., 3:] > 0
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--scenes", type=pathlib.Path, default=SOURCE.parent / "shared/data/lvsm_scenes/train")
    arguments.add_argument("--size", type=int, default=256)
    arguments.add_argument("--picture", type=int, default=512)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))[:2]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "scenes"
        make_scenes(root, arguments.scenes if arguments.scenes.exists() else None, arguments.picture)
        images = OBJECTS * LIGHTS * VIEWS
        print(f"{images} pictures of {arguments.picture} px to {arguments.size} px, two light maps of {ENV[0]} x {ENV[1]} each, "
              f"{'enlarged real scenes' if arguments.scenes.exists() else 'synthetic'}; ms per picture, median (least to most) of {arguments.repeats}\n")
        print("| | Python loader | ingest, whole command | ratio | ingest, without its start | ratio | CPU ms: loader | ingest | without start | ratio |")
        print("|---" * 10 + "|")
        for count in 1, 2:
            os.sched_setaffinity(0, cores[:count])
            runs = []
            for _ in range(arguments.repeats + 1):
                loader = load(root, arguments.size, 0 if count == 1 else 2)
                whole, one = (ingest(root, arguments.size, count, root.parent / "out", scenes) for scenes in ("full_list.txt", "one.txt"))
                runs.append([1000 * value / images for value in (*loader, *whole)] + [1000 * (a - b) / (images - VIEWS) for a, b in zip(whole, one)])
            row = list(zip(*runs[1:]))  # the first of each warms the cache
            wall, used, quick, quick_used, further, further_used = row
            cells = [spread(wall), spread(quick), ratio(wall, quick), spread(further), ratio(wall, further)]
            cells += [f"{statistics.median(values):.2f}" for values in (used, quick_used, further_used)] + [ratio(used, further_used)]
            print(f"| {count} core{'s' if count > 1 else ''} | " + " | ".join(cells) + " |", flush=True)


def ratio(slow, fast):
    runs = [a / b for a, b in zip(slow, fast)]
    return f"{statistics.median(slow) / statistics.median(fast):.1f} ({min(runs):.1f} to {max(runs):.1f})"


if __name__ == "__main__":
    sys.exit(main())
