"""Where one car shows in the other's views: projection, red paint, instance codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.camera import MOUNTS, VIEWS, carla_matrix, carla_pose, carla_to_c2w, intrinsics, project
from tasks.planning.rows import FIRST_EXTRA_ID

FOV_DEG = 90.0
RED_SHARE = 0.05
VEHICLE_TAGS = (14, 15, 16, 18, 19)
BOX_MARGIN_M = 0.2
CORNERS = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], float)


@dataclass(frozen=True)
class Box:
    """An actor's bounding box."""

    pose: np.ndarray
    """[6] of the actor in CARLA's axes"""
    extent: np.ndarray
    """[3] half sizes"""
    centre: np.ndarray
    """[3] in the actor's frame"""

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Tell which points [N, 3] of CARLA's world lie inside, or almost."""
        matrix = carla_matrix(self.pose)
        local = (points - matrix[:3, 3]) @ matrix[:3, :3] - self.centre
        return (np.abs(local) <= self.extent + BOX_MARGIN_M).all(-1)


def camera_poses(agent_pose: np.ndarray) -> np.ndarray:
    """Return [..., V, 6] world poses of the cameras of cars at [..., 6]."""
    mounts = carla_matrix(np.array([MOUNTS[view] for view in VIEWS]))
    return carla_pose(carla_matrix(agent_pose)[..., None, :, :] @ mounts)


def is_red(bgr: np.ndarray) -> np.ndarray:
    """Tell the paint of the agents' cars by pixel [..., 3]."""
    blue, green, red = (bgr[..., k].astype(float) for k in range(3))
    return (red > 60) & (red > 1.6 * green) & (red > 1.3 * blue)


def box_corners(pose: np.ndarray, extent: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return [8, 3] corners of a car's box in the right-handed world (y negated)."""
    matrix = carla_matrix(pose)
    return ((CORNERS * extent + centre) @ matrix[:3, :3].T + matrix[:3, 3]) * (1, -1, 1)


def rectangle(corners: np.ndarray, camera_pose: np.ndarray, width: int, height: int) -> tuple[slice, slice] | None:
    """Return rows and columns of the box's rectangle in a view, None when it is behind or outside."""
    pixels, depth = project(corners, intrinsics(width, height, FOV_DEG), carla_to_c2w(camera_pose))
    if depth.min() < 0.3:
        return None
    low, high = np.floor(pixels.min(0)).astype(int), np.ceil(pixels.max(0)).astype(int)
    if high[0] <= 0 or high[1] <= 0 or low[0] >= width or low[1] >= height:
        return None
    return slice(max(low[1], 0), min(high[1], height)), slice(max(low[0], 0), min(high[0], width))


def sees(
    views: list[np.ndarray], agent_pose: np.ndarray, other_pose: np.ndarray, extent: np.ndarray, centre: np.ndarray
) -> bool:
    """Tell whether the other car shows in any view: its projected box holds enough red paint (paper: red Audi TTs)."""
    corners = box_corners(other_pose, extent, centre)
    for number, camera in enumerate(camera_poses(agent_pose)):
        height, width = views[number].shape[:2]
        where = rectangle(corners, camera, width, height)
        if where is None:
            continue
        patch = views[number][where]
        if patch.size and is_red(patch).mean() >= RED_SHARE:
            return True
    return False


def agent_codes(
    instance: list[np.ndarray],
    depth: list[np.ndarray],
    agent_pose: np.ndarray,
    other_pose: np.ndarray,
    extent: np.ndarray,
    centre: np.ndarray,
    car_tag: int = 14,
) -> tuple[int, int] | None:
    """Return the (G, B) code of the other car in instance images, by vote; None where it does not show.

    Counted are pixels tagged Car inside the projected box whose depth lies within the box's: the same on the real CARLA
    and on the embedded one, which number instances differently. Images are [h, w, 4] BGRA and [h, w] centimetres.
    """  # fmt: skip
    corners = box_corners(other_pose, extent, centre)
    votes: dict[tuple[int, int], int] = {}
    for number, camera in enumerate(camera_poses(agent_pose)):
        height, width = instance[number].shape[:2]
        where = rectangle(corners, camera, width, height)
        if where is None:
            continue
        _, along = project(corners, intrinsics(width, height, FOV_DEG), carla_to_c2w(camera))
        metres = depth[number][where] / 100.0
        patch = instance[number][where]
        inside = (patch[..., 2] == car_tag) & (metres > along.min() - 0.3) & (metres < along.max() + 0.3)
        for green, blue in patch[inside][:, [1, 0]]:
            votes[int(green), int(blue)] = votes.get((int(green), int(blue)), 0) + 1
    if not votes or max(votes.values()) < 12:
        return None
    return max(votes, key=lambda code: votes[code])


def pixel_points(depth_cm: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Return the world's points [h, w, 3] (CARLA's axes) that a view of `camera` [6] shows at its depths [h, w]."""
    height, width = depth_cm.shape
    K = intrinsics(width, height, FOV_DEG)
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1)
    c2w = carla_to_c2w(camera)
    return (rays * depth_cm[..., None] / 100.0 @ c2w[:3, :3].T + c2w[:3, 3]) * (1, -1, 1)


def find_extra_codes(
    instance: list[np.ndarray],
    depth: list[np.ndarray],
    agent_pose: np.ndarray,
    boxes: Sequence[Box],
    known: dict[tuple[int, int], int],
    others: dict[tuple[int, int], int],
) -> None:
    """Enter the codes of extra actors that show for the first time in `others`, as FIRST_EXTRA_ID + number in the plan.

    By where their pixels are in space: simulators number instances each in its way.
    """
    if not boxes:
        return
    for image, centimetres, camera in zip(instance, depth, camera_poses(agent_pose), strict=True):
        fresh = np.isin(image[..., 2], VEHICLE_TAGS)
        for green, blue in np.unique(image[fresh][:, [1, 0]], axis=0):
            code = int(green), int(blue)
            if code in known or code in others:
                continue
            mine = fresh & (image[..., 1] == green) & (image[..., 0] == blue)
            points = pixel_points(centimetres, camera)[mine]
            shares = [float(box.holds(points).mean()) for box in boxes]
            best = int(np.argmax(shares))
            others[code] = FIRST_EXTRA_ID + (best if shares[best] > 0.5 else len(boxes) + len(others))


def remapped(instance: np.ndarray, codes: dict[tuple[int, int], int], others: dict[tuple[int, int], int]) -> np.ndarray:
    """Return [h, w] uint16: 0 no vehicle, 1 agent 0, 2 agent 1, others from 3 in order of appearance."""
    result = np.zeros(instance.shape[:2], np.uint16)
    vehicle = np.isin(instance[..., 2], VEHICLE_TAGS)
    found = np.unique(instance[vehicle][:, [1, 0]], axis=0)
    for green, blue in found:
        code = int(green), int(blue)
        number = codes.get(code) or others.setdefault(code, FIRST_EXTRA_ID + len(others))
        result[vehicle & (instance[..., 1] == green) & (instance[..., 0] == blue)] = number
    return result
