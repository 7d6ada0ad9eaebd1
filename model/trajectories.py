"""Cameras from trajectories that a person has: CARLA poses of cars, OpenCV cameras, or speed and steering over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.bicycle import BicycleError, drive
from model.camera import VIEWS, camera_poses, carla_to_c2w, intrinsics
from model.weights import WeightsError, read_json

POSE_FIELDS = ("x", "y", "z", "pitch", "yaw", "roll")
MAX_METRES = 1e6
MAX_DEGREES = 1e4
ROTATION_TOLERANCE = 1e-3
LEAST_HEADING = 1e-3
"""Horizontal part of the first camera's viewing direction, by which the world is turned."""


class TrajectoryError(ValueError):
    """A trajectory that no camera can follow, or that does not fit the model: whose, what is wrong, what to give."""


def cameras(
    trajectories: Any, *, agents: int, frames: int, views: str, fps: float, fov_deg: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return K [A, V, 3, 3] and c2w [A, V, T, 4, 4] float64 of one trajectory per agent.

    `trajectories`: a list, an object {"trajectories": list}, or the path of a JSON file with either. Each is one of
    - poses of the car in CARLA's axes, a list of {x, y, z, pitch, yaw, roll} in metres and degrees, or [T, 6]; the
      cameras are mounted as in `model.camera.MOUNTS`, with a field of view of `fov_deg`;
    - {"start": pose, "speed_mps": [T], "steering": [T]}, driven by `model.bicycle.drive` at `fps`;
    - c2w [V, T, 4, 4] in OpenCV's axes and metres (model/camera.py), or {"c2w": ..., "K": [V, 3, 3] or [3, 3]}, with
      pixels of any scale and the principal point at the picture's centre.

    T is one frame and then whole windows: n * (`frames` - 1) + 1. TrajectoryError for anything else.
    """
    if isinstance(trajectories, str | Path):
        trajectories = read_trajectories(Path(trajectories))
    if isinstance(trajectories, Mapping):
        if "trajectories" not in trajectories:
            raise TrajectoryError("the object has no 'trajectories': give a list with one trajectory per agent.")
        trajectories = trajectories["trajectories"]
    if isinstance(trajectories, str) or not isinstance(trajectories, Sequence | np.ndarray | torch.Tensor):
        raise TrajectoryError(f"trajectories is a {type(trajectories).__name__}: give a list with one per agent.")
    if len(trajectories) != agents:
        raise TrajectoryError(f"there are {len(trajectories)} trajectories and {agents} pictures: give one per agent.")
    both = [agent_cameras(given, f"agent {agent}", views, fps, fov_deg) for agent, given in enumerate(trajectories)]
    lengths = [c2w.shape[1] for _, c2w in both]
    if len(set(lengths)) > 1:
        raise TrajectoryError(f"the agents' trajectories have {lengths} frames: give equally many.")
    check_length(lengths[0], frames)
    return torch.from_numpy(np.stack([K for K, _ in both])), torch.from_numpy(np.stack([c2w for _, c2w in both]))


def check_length(length: int, frames: int) -> None:
    """Raise TrajectoryError unless `length` frames are whole windows of `frames`, each from the last frame before."""
    windows, rest = divmod(length - 1, frames - 1)
    if rest or windows < 1:
        fitting = [str(n * (frames - 1) + 1) for n in (windows, windows + 1) if n >= 1]
        raise TrajectoryError(
            f"the trajectories have {length} frames, which are no whole windows of the model's {frames}: give "
            f"{' or '.join(fitting)}."
        )


def read_trajectories(path: Path) -> Any:
    """Return what a JSON file of trajectories holds. TrajectoryError for a missing or damaged file."""
    try:
        return read_json(path)
    except WeightsError as error:
        raise TrajectoryError(f"{error}: give a JSON file of trajectories.") from error


def agent_cameras(given: Any, who: str, views: str, fps: float, fov_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Return K [V, 3, 3] and c2w [V, T, 4, 4] of one agent."""
    K = np.broadcast_to(intrinsics(2, 2, fov_deg), (len(VIEWS), 3, 3)).copy()
    if isinstance(given, Mapping):
        if "c2w" in given:
            c2w = checked_c2w(numbers(given["c2w"], f"c2w of {who}"), who, views)
            return (checked_k(given["K"], who, len(c2w)) if "K" in given else K[: len(c2w)]), c2w
        poses = driven(given, who, fps)
    else:
        if isinstance(given, Sequence) and len(given) and isinstance(given[0], Mapping):
            given = [pose_of(pose, f"pose {frame} of {who}") for frame, pose in enumerate(given)]
        array = numbers(given, f"the trajectory of {who}")
        if array.ndim == 4:
            c2w = checked_c2w(array, who, views)
            return K[: len(c2w)], c2w
        poses = array
    return K, carla_to_c2w(camera_poses(checked_poses(poses, who))).swapaxes(0, 1)


def numbers(values: Any, what: str) -> np.ndarray:
    """Return values as a float64 array. TrajectoryError when they are no finite numbers of one shape."""
    try:
        array = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, np.float64)
    except (TypeError, ValueError) as error:
        raise TrajectoryError(
            f"{what} holds no numbers of one shape: give poses, cameras, or speed and steering."
        ) from error
    if not np.isfinite(array).all():
        raise TrajectoryError(f"{what} holds values that are not finite.")
    return array


def pose_of(pose: Any, what: str) -> list[Any]:
    """Return a pose [6] of an object with exactly CARLA's six numbers."""
    if not isinstance(pose, Mapping) or set(pose) != set(POSE_FIELDS):
        raise TrajectoryError(f"{what} is not {{{', '.join(POSE_FIELDS)}}}: give these six numbers.")
    if wrong := [name for name in POSE_FIELDS if isinstance(pose[name], str | bool | None)]:
        raise TrajectoryError(f"{what} has {wrong[0]} {pose[wrong[0]]!r:.40}: give a number.")
    return [pose[name] for name in POSE_FIELDS]


def checked_poses(poses: np.ndarray, who: str) -> np.ndarray:
    """Return poses [T, 6]. TrajectoryError for another shape, and for values out of range."""
    if poses.ndim != 2 or poses.shape[1] != len(POSE_FIELDS):
        raise TrajectoryError(
            f"the trajectory of {who} has shape {poses.shape}: give poses [T, 6] or c2w [V, T, 4, 4]."
        )
    limits = np.array([MAX_METRES] * 3 + [90.0] + [MAX_DEGREES] * 2)
    wrong = np.argwhere(np.abs(poses) > limits)
    if len(wrong):
        frame, field = wrong[0]
        raise TrajectoryError(
            f"pose {frame} of {who} has {POSE_FIELDS[field]} {poses[frame, field]:g}: give at most {limits[field]:g}."
        )
    return poses


def driven(given: Mapping[str, Any], who: str, fps: float) -> np.ndarray:
    """Return the poses [T, 6] of a car that is steered from a start."""
    needed = ("start", "speed_mps", "steering")
    if missing := [name for name in needed if name not in given]:
        raise TrajectoryError(f"the trajectory of {who} has no {missing[0]!r}: give {', '.join(needed)}, or c2w.")
    start, what = given["start"], f"the start of {who}"
    start = pose_of(start, what) if isinstance(start, Mapping) else start
    first = checked_poses(numbers([start], what), who)[0]
    speed, steering = (numbers(given[name], f"{name} of {who}") for name in needed[1:])
    try:
        return drive(first, speed, steering, fps)  # type: ignore[arg-type]
    except BicycleError as error:
        raise TrajectoryError(f"{who}: {error}") from error


def checked_c2w(c2w: np.ndarray, who: str, views: str) -> np.ndarray:
    """Return camera-to-world matrices [V, T, 4, 4]. TrajectoryError for another shape, and for no rigid motion."""
    counts = (len(VIEWS),) if views == "four" else (len(VIEWS), 1)
    if c2w.ndim != 4 or c2w.shape[2:] != (4, 4) or c2w.shape[0] not in counts or not c2w.shape[1]:
        raise TrajectoryError(f"c2w of {who} has shape {c2w.shape}: give [{counts[0]}, T, 4, 4].")
    rotation = c2w[..., :3, :3]
    off = np.abs(rotation @ rotation.swapaxes(-1, -2) - np.eye(3)).max()
    if off > ROTATION_TOLERANCE or (np.linalg.det(rotation) < 0).any() or (c2w[..., 3, :] != [0, 0, 0, 1]).any():
        raise TrajectoryError(f"c2w of {who} holds a matrix that is no rotation and position: give camera-to-world.")
    if np.hypot(*c2w[0, 0, :2, 2]) < LEAST_HEADING:
        raise TrajectoryError(f"the first camera of {who} looks straight up or down: it must show where the car heads.")
    if np.abs(c2w[..., :3, 3]).max() > MAX_METRES:
        raise TrajectoryError(f"c2w of {who} has a camera beyond {MAX_METRES:g} m.")
    return c2w


def checked_k(K: Any, who: str, count: int) -> np.ndarray:
    """Return intrinsics [V, 3, 3]. TrajectoryError for another shape, and for no pinhole camera."""
    K = numbers(K, f"K of {who}")
    if K.shape not in ((3, 3), (count, 3, 3)):
        raise TrajectoryError(f"K of {who} has shape {K.shape}: give [3, 3] or [{count}, 3, 3].")
    K = np.broadcast_to(K, (count, 3, 3)).copy()
    if (K[:, [0, 1, 0, 1], [0, 1, 2, 2]] <= 0).any() or (K[:, 2] != [0, 0, 1]).any():
        raise TrajectoryError(f"K of {who} is no pinhole camera: focal lengths and principal point are above 0.")
    return K
