"""Compiles the renderer's code before anybody waits for a picture."""

from __future__ import annotations

from functools import cache

import numpy as np

from infra.minicarla.render.renderer import Renderer
from infra.minicarla.scenery import Body, Camera, CameraKind, Ground, Label, Scenery, Shape, Weather


@cache
def warm_up() -> None:
    """Compile everything, once a process: most of a minute the first time on a machine, cached by numba after that."""
    body = Body(Shape.COUPE, (5, 0, 0, 0, 0, 0), (2.09, 0.99, 0.69), (0.7, 0.05, 0.08), Label.CAR, 1)
    camera = Camera(CameraKind.RGB, (0, 0, 2, 0, 0, 0), 16, 16, 90.0)
    Renderer(plain(), threads=1).render([camera], [body], Weather())


def plain() -> Scenery:
    """A square of grass with one box and one tree."""
    row = np.ones((1, 3), np.float32)
    return Scenery(
        ground=np.full((64, 64), int(Ground.GRASS), np.uint8),
        origin_xy=(-32.0, -32.0),
        texel_m=1.0,
        box_center=12 * row,
        box_half=row,
        box_yaw_deg=row[:, 0],
        box_rgb=0.5 * row,
        box_facade=np.ones(1, np.int32),
        box_roof_rgb=0.5 * row,
        box_label=np.full(1, int(Label.BUILDINGS), np.uint8),
        tree_xy=-12 * row[:, :2],
        tree_trunk=row[:, :2],
        tree_canopy=row[:, :2],
        tree_rgb=0.5 * row,
    )
