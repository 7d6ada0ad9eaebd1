"""A small made-up scene, and one town, drawn by renderers that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from infra.minicarla import towns
from infra.minicarla.render import Renderer
from infra.minicarla.scenery import Body, Camera, CameraKind, Ground, Label, Pose, Scenery, Shape, Town, Weather

RED = (178 / 255, 14 / 255, 20 / 255)
COUPE_HALF = (2.09, 0.99, 0.69)
SIDE_M, TEXEL_M = 120, 0.1
WALL = {"center": (20.0, 6.0, 2.0), "half": (3.0, 2.0, 2.0)}
"""The one building, front 17 m ahead of the origin."""


def coupe(pose: Pose, actor_id: int = 7) -> Body:
    return Body(Shape.COUPE, pose, COUPE_HALF, RED, Label.CAR, actor_id)


def camera(pose: Pose, kind: CameraKind = CameraKind.RGB, width: int = 96, height: int = 64) -> Camera:
    return Camera(kind, pose, width, height, 90.0)


def brightness(bgra: np.ndarray) -> np.ndarray:
    """Mean of the colours, [h, w] 0..255."""
    return bgra[..., :3].astype(float).mean(-1)


def metres(depth_bgra: np.ndarray) -> np.ndarray:
    """CARLA's depth code to metres, [h, w]."""
    b, g, r = (depth_bgra[..., k].astype(float) for k in range(3))
    return 1000 * (r + g * 256 + b * 65536) / (2**24 - 1)


def identities(instance_bgra: np.ndarray) -> np.ndarray:
    """Instance ids, [h, w]."""
    return instance_bgra[..., 1].astype(int) + 256 * instance_bgra[..., 0].astype(int)


def floats(*rows: tuple) -> np.ndarray:
    return np.array(rows, np.float32)


def scenery(ground: Ground = Ground.ROAD) -> Scenery:
    """A flat square around the origin with one building and one tree on it."""
    texels = int(SIDE_M / TEXEL_M)
    return Scenery(
        ground=np.full((texels, texels), int(ground), np.uint8),
        origin_xy=(-SIDE_M / 2, -SIDE_M / 2),
        texel_m=TEXEL_M,
        box_center=floats(WALL["center"]),
        box_half=floats(WALL["half"]),
        box_yaw_deg=np.zeros(1, np.float32),
        box_rgb=floats((0.8, 0.8, 0.75)),
        box_facade=np.zeros(1, np.int32),
        box_roof_rgb=floats((0.3, 0.3, 0.3)),
        box_label=np.array([Label.BUILDINGS], np.uint8),
        tree_xy=floats((25.0, -12.0)),
        tree_trunk=floats((3.5, 0.2)),
        tree_canopy=floats((2.0, 2.0)),
        tree_rgb=floats((0.3, 0.5, 0.2)),
    )


@pytest.fixture(scope="session")
def square() -> Renderer:
    return Renderer(scenery(), threads=2)


@pytest.fixture(scope="session")
def town() -> Town:
    return towns.load_town("Mini05")


@pytest.fixture(scope="session")
def town_renderer(town: Town) -> Renderer:
    return Renderer(towns.build_scenery(town), threads=2)


@pytest.fixture(scope="session")
def draw(square: Renderer) -> Callable[..., np.ndarray]:
    """Draws one picture of the square."""

    def one(view: Camera, *bodies: Body, weather: Weather | None = None) -> np.ndarray:
        return square.render([view], bodies, weather or Weather())[0]

    return one
