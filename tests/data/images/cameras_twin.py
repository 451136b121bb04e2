"""The normalisation of camera poses in numpy, in double: cameras_twin.py POSES.f32 prints the normalised poses."""
import sys

import numpy as np


def unit(v):
    return v / np.linalg.norm(v)


poses = np.fromfile(sys.argv[1], np.float32).reshape(-1, 4, 4).astype(np.float64)
forward = unit(poses[:, :3, 2].mean(0))
right = unit(np.cross(poses[:, :3, 1].mean(0), forward))
down = unit(np.cross(forward, right))
mean = np.eye(4)
mean[:3, :3] = np.stack([right, down, forward], 1)
mean[:3, 3] = poses[:, :3, 3].mean(0)
moved = np.linalg.inv(mean) @ poses
moved[:, :3, 3] /= 1.35 * np.abs(moved[:, :3, 3]).max()
print(*moved.ravel())
