"""A room whose geometry is known exactly: smooth textures, a screen that hides, two cars that drive."""

from __future__ import annotations

import numpy as np

from model.camera import MOUNTS, VIEWS, carla_matrix, carla_pose, carla_to_c2w, intrinsics
from tasks.evaluation.measures.shared_world.world import MIRROR, WindowTruth, others

HALF = np.array([20.0, 16.0, 8.0])
"""Half sizes of the room in metres, its floor at z = 0."""
CAR_HALF = np.array([2.0, 0.9, 0.7])
RED = (0.75, 0.06, 0.1)
SCREEN = (np.array([-0.3, -16.0, 0.0]), np.array([0.3, 2.0, 16.0]))
"""Lowest and highest corner of a wall across the room with a gap at one side."""


def texture(points: np.ndarray, seed: int) -> np.ndarray:
    """Return smooth colours [..., 3] in [0, 0.6], never red, of points [..., 3]."""
    rng = np.random.default_rng(seed)
    waves = np.sin(points @ rng.normal(0, 0.35, (3, 4)) + rng.uniform(0, 6, 4))
    grey = 0.3 + 0.15 * waves[..., :2].mean(-1, keepdims=True)
    return np.clip(grey + 0.12 * waves[..., 2:3] * np.array([-1.0, 0.5, 1.0]), 0, 0.6)


def hit_box(origin: np.ndarray, rays: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where rays [..., 3] enter and leave a box, as multiples of the ray; enter > leave: they miss it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (low - origin) / rays, (high - origin) / rays
    return np.nanmax(np.minimum(first, second), -1), np.nanmin(np.maximum(first, second), -1)


def line_is_free(origin: np.ndarray, points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Tell of each point [..., 3] whether nothing of a box lies between it and the origin."""
    enter, leave = hit_box(origin, points - origin, low, high)
    return (enter > leave) | (leave < 0) | (enter > 1 - 1e-6)


def car_poses(frames: int, speed: float, *, apart_m: float = 8.0) -> np.ndarray:
    """Return [2, F, 6]: cars that drive towards each other on lanes 4 m apart, CARLA's axes."""
    poses = np.zeros((2, frames, 6))
    steps = np.arange(frames) * speed
    poses[0, :, 0], poses[0, :, 1] = steps - apart_m, -2.0
    poses[1, :, 0], poses[1, :, 1], poses[1, :, 4] = apart_m - steps, 2.0, 180.0
    return poses


def build(
    cars: np.ndarray,
    *,
    width: int = 36,
    height: int = 24,
    seed: int = 0,
    screen: bool = False,
    bodies: bool = True,
) -> tuple[WindowTruth, np.ndarray]:
    """Return the world and the true videos [A, V, T, h, w, 3] seen from cars [A, T, 6]."""
    agents, frames = cars.shape[:2]
    mounts = carla_matrix(np.array([MOUNTS[view] for view in VIEWS]))
    c2w = carla_to_c2w(carla_pose(np.einsum("atij,vjk->avtik", carla_matrix(cars), mounts)))
    K = np.broadcast_to(intrinsics(width, height, 90.0), (agents, len(VIEWS), 3, 3)).copy()
    poses = MIRROR @ carla_matrix(cars)
    shape = (agents, len(VIEWS), frames, height, width)
    depth, ids, video = np.empty(shape), np.zeros(shape, np.uint16), np.empty((*shape, 3), np.float32)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K[0, 0]).T
    for agent, view, frame in np.ndindex(*shape[:3]):
        eye, rays = c2w[agent, view, frame, :3, 3], pixels @ c2w[agent, view, frame, :3, :3].T
        _, distance = hit_box(eye, rays, np.array([-HALF[0], -HALF[1], 0]), np.array([HALF[0], HALF[1], 2 * HALF[2]]))
        number = np.zeros((height, width), np.uint16)
        if screen:
            enter, leave = hit_box(eye, rays, *SCREEN)
            distance = np.where((enter > 0) & (enter < leave) & (enter < distance), enter, distance)
        for other in range(agents) if bodies else ():
            if other != agent:
                local = np.linalg.inv(poses[other, frame])
                enter, leave = hit_box(local[:3, :3] @ eye + local[:3, 3], rays @ local[:3, :3].T, *body())
                nearer = (enter > 0) & (enter < leave) & (enter < distance)
                distance, number[nearer] = np.where(nearer, enter, distance), other + 1
        depth[agent, view, frame], ids[agent, view, frame] = distance, number
        colours = texture(eye + rays * distance[..., None], seed)
        colours[number > 0] = RED
        video[agent, view, frame] = colours
    inverse = (1 / depth).astype(np.float32)
    world = WindowTruth(np.arange(frames), c2w, poses, K, inverse, ids, others(ids).astype(np.float32), K, inverse)
    return world, video


def body() -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a car's box in its own frame."""
    return np.array([-CAR_HALF[0], -CAR_HALF[1], 0.0]), np.array([CAR_HALF[0], CAR_HALF[1], 2 * CAR_HALF[2]])


def points_of(world: WindowTruth, agent: int, frame: int) -> np.ndarray:
    """Return the world points [V, h, w, 3] of an agent's pixels."""
    height, width = world.inverse.shape[-2:]
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(world.K[agent, 0]).T
    local = pixels / world.inverse[agent, :, frame, :, :, None]
    rotation, origin = world.c2w[agent, :, frame, :3, :3], world.c2w[agent, :, frame, :3, 3]
    return np.einsum("vij,vhwj->vhwi", rotation, local) + origin[:, None, None]
