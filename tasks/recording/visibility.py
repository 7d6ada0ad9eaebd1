"""What an agent's views show of the other car and of extra actors: projected boxes, red paint, instance codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.camera import FOV_DEG, camera_poses, carla_matrix, carla_to_c2w, intrinsics, project
from tasks.planning.rows import FIRST_EXTRA_ID

MIN_RED_SHARE = 0.05
"""Share of red pixels in the other car's projected box from which on it counts as seen."""
CAR_TAG = 14
VEHICLE_TAGS = (14, 15, 16, 18, 19)
"""CARLA's semantic tags of car, truck, bus, motorcycle and bicycle."""
BOX_MARGIN_M = 0.2
"""By this much a point may lie outside a box that contains it."""
DEPTH_MARGIN_M = 0.3
NEAREST_M = 0.3
"""A box with a corner nearer than this to the camera's plane is not projected."""
MIN_VOTES = 12
"""Pixels that must agree on the other car's instance code."""
UNIT_CORNERS = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], float)


@dataclass(frozen=True)
class Box:
    """An actor's bounding box, in metres and degrees."""

    pose: np.ndarray
    """[6] of the actor in CARLA's world"""
    extent: np.ndarray
    """[3] half sizes"""
    centre: np.ndarray
    """[3] in the actor's frame"""

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Tell which points [N, 3] of CARLA's world lie inside, or at most BOX_MARGIN_M outside."""
        matrix = carla_matrix(self.pose)
        local = (points - matrix[:3, 3]) @ matrix[:3, :3] - self.centre
        return (np.abs(local) <= self.extent + BOX_MARGIN_M).all(-1)


def is_red(bgr: np.ndarray) -> np.ndarray:
    """Tell which BGR pixels [..., 3] show the paint of the agents' cars."""
    blue, green, red = (bgr[..., k].astype(float) for k in range(3))
    return (red > 60) & (red > 1.6 * green) & (red > 1.3 * blue)


def box_corners(pose: np.ndarray, extent: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return the corners [8, 3] of a car's box in the right-handed world (CARLA's y negated)."""
    matrix = carla_matrix(pose)
    return ((UNIT_CORNERS * extent + centre) @ matrix[:3, :3].T + matrix[:3, 3]) * (1, -1, 1)


def projected_rectangle(
    corners: np.ndarray, camera_pose: np.ndarray, width: int, height: int
) -> tuple[slice, slice] | None:
    """Return the rows and columns that a box's corners [8, 3] span in a view; None where they lie behind or outside."""
    pixels, depth = project(corners, intrinsics(width, height, FOV_DEG), carla_to_c2w(camera_pose))
    if depth.min() < NEAREST_M:
        return None
    low, high = np.floor(pixels.min(0)).astype(int), np.ceil(pixels.max(0)).astype(int)
    if high[0] <= 0 or high[1] <= 0 or low[0] >= width or low[1] >= height:
        return None
    return slice(max(low[1], 0), min(high[1], height)), slice(max(low[0], 0), min(high[0], width))


def sees_other_car(
    views: list[np.ndarray], agent_pose: np.ndarray, other_pose: np.ndarray, extent: np.ndarray, centre: np.ndarray
) -> bool:
    """Tell whether any view [h, w, 3] BGR shows the other car: its projected box holds enough red paint.

    Both cars are red Audi TTs, as in the paper.
    """
    corners = box_corners(other_pose, extent, centre)
    for view, camera in zip(views, camera_poses(agent_pose), strict=True):
        height, width = view.shape[:2]
        rectangle = projected_rectangle(corners, camera, width, height)
        if rectangle is None:
            continue
        patch = view[rectangle]
        if patch.size and is_red(patch).mean() >= MIN_RED_SHARE:
            return True
    return False


def other_car_code(
    instance: list[np.ndarray],
    depth: list[np.ndarray],
    agent_pose: np.ndarray,
    other_pose: np.ndarray,
    extent: np.ndarray,
    centre: np.ndarray,
) -> tuple[int, int] | None:
    """Return the (G, B) instance code of the other car, by vote over pixels; None where it does not show.

    instance: images [h, w, 4] BGRA per view. depth: [h, w] centimetres per view. Pixels vote that are tagged as a car
    and lie inside the projected box at the box's depth. This works on the real CARLA and on the embedded one, which
    number instances differently.
    """
    corners = box_corners(other_pose, extent, centre)
    votes: Counter[tuple[int, int]] = Counter()
    for image, centimetres, camera in zip(instance, depth, camera_poses(agent_pose), strict=True):
        height, width = image.shape[:2]
        rectangle = projected_rectangle(corners, camera, width, height)
        if rectangle is None:
            continue
        _, corner_depths_m = project(corners, intrinsics(width, height, FOV_DEG), carla_to_c2w(camera))
        nearest_m, farthest_m = corner_depths_m.min() - DEPTH_MARGIN_M, corner_depths_m.max() + DEPTH_MARGIN_M
        depth_m, patch = centimetres[rectangle] / 100.0, image[rectangle]
        inside = (patch[..., 2] == CAR_TAG) & (depth_m > nearest_m) & (depth_m < farthest_m)
        votes.update((int(green), int(blue)) for green, blue in patch[inside][:, [1, 0]])
    if not votes or max(votes.values()) < MIN_VOTES:
        return None
    return max(votes, key=lambda code: votes[code])


def points_from_depth(depth_cm: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Return the points [h, w, 3] of CARLA's world that a camera at pose `camera` [6] shows at depths [h, w]."""
    height, width = depth_cm.shape
    K = intrinsics(width, height, FOV_DEG)
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1)
    c2w = carla_to_c2w(camera)
    return (rays * depth_cm[..., None] / 100.0 @ c2w[:3, :3].T + c2w[:3, 3]) * (1, -1, 1)


def identify_extra_actors(
    instance: list[np.ndarray],
    depth: list[np.ndarray],
    agent_pose: np.ndarray,
    boxes: Sequence[Box],
    agent_ids: dict[tuple[int, int], int],
    other_ids: dict[tuple[int, int], int],
) -> None:
    """Add the instance codes of vehicles that show for the first time to `other_ids`.

    The plan's extra actor k, whose box is `boxes[k]`, gets the id FIRST_EXTRA_ID + k. Pixels are matched to boxes by
    their points in space, because simulators number instances differently.
    """
    if not boxes:
        return
    for image, centimetres, camera in zip(instance, depth, camera_poses(agent_pose), strict=True):
        is_vehicle = np.isin(image[..., 2], VEHICLE_TAGS)
        for green, blue in np.unique(image[is_vehicle][:, [1, 0]], axis=0):
            code = int(green), int(blue)
            if code in agent_ids or code in other_ids:
                continue
            has_code = is_vehicle & (image[..., 1] == green) & (image[..., 0] == blue)
            points = points_from_depth(centimetres, camera)[has_code]
            shares = [float(box.contains(points).mean()) for box in boxes]
            best = int(np.argmax(shares))
            other_ids[code] = FIRST_EXTRA_ID + (best if shares[best] > 0.5 else len(boxes) + len(other_ids))


def stored_ids(
    instance: np.ndarray, agent_ids: dict[tuple[int, int], int], other_ids: dict[tuple[int, int], int]
) -> np.ndarray:
    """Return the ids [h, w] uint16 to store for an instance image [h, w, 4] BGRA.

    0: no vehicle; 1: agent 0; 2: agent 1; from FIRST_EXTRA_ID: other vehicles. New ones are added to `other_ids` in
    order of appearance.
    """
    ids = np.zeros(instance.shape[:2], np.uint16)
    is_vehicle = np.isin(instance[..., 2], VEHICLE_TAGS)
    for green, blue in np.unique(instance[is_vehicle][:, [1, 0]], axis=0):
        code = int(green), int(blue)
        stored_id = agent_ids.get(code) or other_ids.setdefault(code, FIRST_EXTRA_ID + len(other_ids))
        ids[is_vehicle & (instance[..., 1] == green) & (instance[..., 0] == blue)] = stored_id
    return ids
