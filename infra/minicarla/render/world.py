"""A town's scenery laid out for rays: boxes, tree crowns, ground, and a coarse relief for reflections."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from infra.minicarla.render.parts import PART_GLOSS, PART_GLOW, PART_RGB, liveries
from infra.minicarla.render.textures import GROUND_RGB, GROUND_TAG, facades, ground_pyramid, noise
from infra.minicarla.render.vehicles import fleet
from infra.minicarla.scenery import Label, Scenery

FIRST_ID = 20_000
"""Instance id of the first piece of scenery; those below are actors'."""
BARK = (0.36, 0.27, 0.20)
RELIEF_M = 2.0
LOBES = (
    (0.00, 0.00, 0.10, 0.72, 0.86),
    (0.52, 0.12, -0.14, 0.52, 0.56),
    (-0.46, 0.34, -0.20, 0.54, 0.54),
    (-0.06, -0.54, -0.10, 0.52, 0.58),
    (0.22, 0.48, 0.16, 0.48, 0.52),
    (-0.34, -0.20, 0.38, 0.46, 0.46),
)
"""Ellipsoids of a crown: offset and half axes as parts of the crown's."""


class RenderedWorld(NamedTuple):
    """Arrays as the kernels read them."""

    box: np.ndarray
    """[N, 13] x y z of the centre, half x y z, cos and sin of the yaw, r g b (0..255), facade, radius in the plane"""
    roof: np.ndarray
    """[N, 3] 0..255"""
    box_tag: np.ndarray
    box_id: np.ndarray
    tree: np.ndarray
    """[T, 4] x y z and radius of a ball around the crown"""
    crown: np.ndarray
    """[T, lobes, 8] x y z of the centre, half axes in the plane and up, r g b (0..255)"""
    tree_id: np.ndarray
    ground: np.ndarray
    """[H, W] uint8 kinds"""
    ground_x: float
    ground_y: float
    texels_per_m: float
    ground_rgb: np.ndarray
    ground_tag: np.ndarray
    mip: np.ndarray
    mip_start: np.ndarray
    mip_rows: np.ndarray
    mip_columns: np.ndarray
    facade: np.ndarray
    facade_start: np.ndarray
    facade_size: int
    noise: np.ndarray
    leaf: np.ndarray
    relief: np.ndarray
    """[h, w, 4] float32 greatest height and r g b of what stands in a 2 m cell"""
    corners: np.ndarray
    normals: np.ndarray
    part: np.ndarray
    bounds: np.ndarray
    links: np.ndarray
    first: np.ndarray
    part_rgb: np.ndarray
    part_gloss: np.ndarray
    part_glow: np.ndarray
    livery: np.ndarray


def build_world(scenery: Scenery) -> RenderedWorld:
    """Lay out a scenery. A trunk is a thin box, a crown six ellipsoids."""
    trunks = len(scenery.tree_xy)
    yaw = np.radians(scenery.box_yaw_deg.astype(np.float64))
    boxes = np.zeros((len(yaw) + trunks, 13))
    roof = np.zeros((len(boxes), 3))
    n = len(yaw)
    boxes[:n, :3], boxes[:n, 3:6] = scenery.box_center, scenery.box_half
    boxes[:n, 6], boxes[:n, 7] = np.cos(yaw), np.sin(yaw)
    boxes[:n, 8:11], boxes[:n, 11] = 255 * scenery.box_rgb, scenery.box_facade
    roof[:n] = 255 * scenery.box_roof_rgb
    radius, height = scenery.tree_trunk[:, 1], scenery.tree_trunk[:, 0]
    boxes[n:, :2], boxes[n:, 2] = scenery.tree_xy, height / 2
    boxes[n:, 3], boxes[n:, 4], boxes[n:, 5] = radius, radius, height / 2
    boxes[n:, 6], boxes[n:, 8:11] = 1.0, 255 * np.array(BARK)
    roof[n:] = boxes[n:, 8:11]
    boxes[:, 12] = np.hypot(boxes[:, 3], boxes[:, 4])
    crowns = crowns_of(scenery)
    tags = np.concatenate([scenery.box_label, np.full(trunks, int(Label.VEGETATION))]).astype(np.int64)
    tree_ids = FIRST_ID + n + np.arange(trunks)
    colours = ground_pyramid(scenery.ground)
    walls, cars = facades(), fleet()
    return RenderedWorld(
        boxes, roof, tags, np.concatenate([FIRST_ID + np.arange(n), tree_ids]), balls_of(scenery),
        crowns, tree_ids,
        np.ascontiguousarray(scenery.ground), float(scenery.origin_xy[0]), float(scenery.origin_xy[1]),
        1.0 / scenery.texel_m, GROUND_RGB.astype(np.float64), GROUND_TAG.astype(np.int64), colours.texels,
        colours.start, colours.rows, colours.columns, walls.texels, walls.start, int(walls.columns[0]), noise(),
        noise(range(5, 8), 1.0, 5),
        relief_of(scenery, boxes, crowns), cars.corners, cars.normals, cars.part, cars.bounds, cars.links, cars.first,
        PART_RGB * 255, PART_GLOSS, PART_GLOW, liveries(),
    )  # fmt: skip


def crowns_of(scenery: Scenery) -> np.ndarray:
    """Return [T, lobes, 8] ellipsoids of the trees' crowns, each tree turned another way."""
    trees = len(scenery.tree_xy)
    crowns = np.zeros((trees, len(LOBES), 8))
    turn = 2.399963 * np.arange(trees)  # the golden angle: no two neighbours alike
    wide, tall = scenery.tree_canopy[:, 0], scenery.tree_canopy[:, 1]
    for k, (x, y, z, a, b) in enumerate(LOBES):
        crowns[:, k, 0] = scenery.tree_xy[:, 0] + wide * (x * np.cos(turn) - y * np.sin(turn))
        crowns[:, k, 1] = scenery.tree_xy[:, 1] + wide * (x * np.sin(turn) + y * np.cos(turn))
        crowns[:, k, 2] = scenery.tree_trunk[:, 0] + tall * z
        crowns[:, k, 3], crowns[:, k, 4] = wide * a, tall * b
        crowns[:, k, 5:] = 255 * scenery.tree_rgb
    return crowns


def balls_of(scenery: Scenery) -> np.ndarray:
    """Return [T, 4] centre and radius of a ball around each crown."""
    wide, tall = scenery.tree_canopy[:, 0], scenery.tree_canopy[:, 1]
    reach = np.zeros(len(wide))
    for x, y, z, a, b in LOBES:
        reach = np.maximum(reach, np.hypot(np.hypot(x, y) * wide, z * tall) + np.maximum(a * wide, b * tall))
    return np.column_stack([scenery.tree_xy, scenery.tree_trunk[:, 0], reach]).astype(np.float64)


def relief_of(scenery: Scenery, boxes: np.ndarray, crowns: np.ndarray) -> np.ndarray:
    """Return the coarse relief: what a wet road mirrors."""
    step = max(round(RELIEF_M / scenery.texel_m), 1)
    shape = tuple(side // step + 1 for side in scenery.ground.shape)
    relief = np.zeros((*shape, 4), np.float32)
    x0, y0 = scenery.origin_xy

    def raise_to(x: float, y: float, radius_x: float, radius_y: float, top: float, rgb: np.ndarray) -> None:
        low = [int((v - r - o) / RELIEF_M) for v, r, o in ((y, radius_y, y0), (x, radius_x, x0))]
        high = [int((v + r - o) / RELIEF_M) + 1 for v, r, o in ((y, radius_y, y0), (x, radius_x, x0))]
        cells = relief[max(low[0], 0) : max(high[0], 0), max(low[1], 0) : max(high[1], 0)]
        higher = cells[..., 0] < top
        cells[higher] = (top, *rgb)

    for row in boxes:
        if row[12] > 0.8:
            wide = abs(row[6]) * row[3] + abs(row[7]) * row[4]
            deep = abs(row[7]) * row[3] + abs(row[6]) * row[4]
            shade = 0.62 if row[11] > 0 else 0.9  # windows are dark
            raise_to(row[0], row[1], wide - 0.5, deep - 0.5, row[2] + row[5], shade * row[8:11])
    for row in crowns.reshape(-1, 8):
        raise_to(row[0], row[1], 0.7 * row[3], 0.7 * row[3], row[2] + 0.7 * row[4], 0.7 * row[5:])
    return relief
