"""Conversion of CARLA's left-handed poses to OpenCV's right-handed cameras, done nowhere else.

CARLA: x forward, y right, z up, metres; pitch, yaw, roll in degrees (`carla.Transform`). Ours: CARLA's world with y
negated (right-handed, z up), and cameras that look along +z with x right and y down.
"""

from __future__ import annotations

import numpy as np

VIEWS = ("front", "rear", "left", "right")
"""Order of the view axis V everywhere; the mosaic has front and rear above left and right."""

MOUNTS = {
    "front": (0.3, 0.0, 1.75, 0.0, 0.0, 0.0),
    "rear": (-0.6, 0.0, 1.75, 0.0, 180.0, 0.0),
    "left": (0.0, -0.3, 1.75, 0.0, -90.0, 0.0),
    "right": (0.0, 0.3, 1.75, 0.0, 90.0, 0.0),
}
"""Pose of each camera in its car's frame: x, y, z, pitch, yaw, roll."""

FOV_DEG = 90.0
"""Horizontal field of view of each camera."""

CAMERA_AXES = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Columns: OpenCV's x (right), y (down), z (forward) in CARLA's camera frame (x forward, y right, z up)."""

FLIP_Y = np.diag([1.0, -1.0, 1.0])


def carla_matrix(pose: np.ndarray) -> np.ndarray:
    """Return what `carla.Transform.get_matrix()` gives, [..., 4, 4] float64, for poses [..., 6] (x, y, z, pitch, yaw,
    roll)."""
    pose = np.asarray(pose, np.float64)
    pitch, yaw, roll = np.moveaxis(np.radians(pose[..., 3:]), -1, 0)
    cp, sp, cy, sy, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw), np.cos(roll), np.sin(roll)
    matrix = np.zeros((*pose.shape[:-1], 4, 4))
    rows = (
        (cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr),
        (cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr),
        (sp, -cp * sr, cp * cr),
    )
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            matrix[..., i, j] = value
    matrix[..., :3, 3] = pose[..., :3]
    matrix[..., 3, 3] = 1.0
    return matrix


def carla_pose(matrix: np.ndarray) -> np.ndarray:
    """Return the poses [..., 6] of CARLA matrices [..., 4, 4]: the inverse of `carla_matrix`, |pitch| < 90."""
    pitch = np.arcsin(np.clip(matrix[..., 2, 0], -1.0, 1.0))
    yaw = np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])
    roll = np.arctan2(-matrix[..., 2, 1], matrix[..., 2, 2])
    return np.concatenate([matrix[..., :3, 3], np.degrees(np.stack([pitch, yaw, roll], -1))], -1)


def carla_to_c2w(pose: np.ndarray) -> np.ndarray:
    """Return camera-to-world matrices [..., 4, 4] float64 (OpenCV's axes, the world's y negated) of camera poses
    [..., 6]."""
    carla = carla_matrix(pose)
    c2w = np.zeros_like(carla)
    c2w[..., :3, :3] = FLIP_Y @ carla[..., :3, :3] @ CAMERA_AXES
    c2w[..., :3, 3] = carla[..., :3, 3] @ FLIP_Y
    c2w[..., 3, 3] = 1.0
    return c2w


def camera_poses(agent_pose: np.ndarray) -> np.ndarray:
    """Return the cameras' poses [..., V, 6] in CARLA's world for cars at poses [..., 6]."""
    mounts = carla_matrix(np.array([MOUNTS[view] for view in VIEWS]))
    return carla_pose(carla_matrix(agent_pose)[..., None, :, :] @ mounts)


def intrinsics(width: int, height: int, fov_deg: float) -> np.ndarray:
    """Return K [3, 3] in pixels for a horizontal field of view, with the principal point at the centre of the image.
    Pixel centres are at +0.5."""
    focal = width / (2.0 * np.tan(np.radians(fov_deg) / 2.0))
    return np.array([[focal, 0.0, width / 2.0], [0.0, focal, height / 2.0], [0.0, 0.0, 1.0]])


def project(points: np.ndarray, K: np.ndarray, c2w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project world points [N, 3] into one camera; return pixels [N, 2] and depth along its axis [N], negative behind
    it."""
    local = (np.asarray(points) - c2w[:3, 3]) @ c2w[:3, :3]
    image = local @ K.T
    return image[:, :2] / image[:, 2:], local[:, 2]
