"""Makes a small folder in the LVSM layout: one object, two lights, four views."""

import json

import numpy as np
from PIL import Image

SIZE = 16


def world_to_camera(azimuth):
    """OpenCV axes, looking at the origin from distance 2.5 in the horizontal plane; the world's up is +Z."""
    forward = -np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    down = np.array([0.0, 0.0, -1.0])
    rotation = np.stack([np.cross(down, forward), down, forward])
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = rotation @ (2.5 * forward)
    return pose


def make_lvsm_scenes(folder, views=4):
    """Returns the path of full_list.txt. Paths in it and in the metadata are relative to nothing: a remap is needed."""
    numbers = np.random.default_rng(0)
    names = [f"ball_env_{light}" for light in range(2)]
    for name in names:
        for kind in ("images", "envmaps"):
            (folder / kind / name).mkdir(parents=True)
        frames = []
        for view in range(views):
            picture = numbers.integers(0, 256, (SIZE, SIZE, 4), np.uint8)
            Image.fromarray(picture, "RGBA").save(folder / "images" / name / f"{view:05d}.png")
            for kind in ("ldr", "hdr"):
                light = numbers.integers(1, 255, (SIZE, 2 * SIZE, 3), np.uint8)
                Image.fromarray(light, "RGB").save(folder / "envmaps" / name / f"{view:05d}_{kind}.png")
            frames.append({
                "image_path": f"/elsewhere/images/{name}/{view:05d}.png",
                "fxfycxcy": [20.0, 20.0, SIZE / 2, SIZE / 2],
                "w2c": world_to_camera(2 * np.pi * view / views + 0.1).tolist(),
            })
        (folder / "metadata").mkdir(exist_ok=True)
        (folder / "metadata" / f"{name}.json").write_text(json.dumps({"scene_name": name, "frames": frames}))
    (folder / "full_list.txt").write_text("".join(f"/elsewhere/metadata/{name}.json\n" for name in names))
    return folder / "full_list.txt"


def ingest_arguments(folder, out, size=SIZE):
    return ["ingest", "--scenes", folder / "full_list.txt", "--remap", f"/elsewhere={folder}", "--out", out, "--size", size, "--env-height", SIZE]
