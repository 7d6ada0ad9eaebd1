"""A town's scenery, made from its OpenDRIVE text and its style alone, bit for bit the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np

from ..scenery import Ground, Scenery, Town
from .looks import Look, look_of
from .lots import Land, frontages
from .painting import (
    MARGIN_M,
    Pen,
    Raster,
    keep_clear,
    paint_crossings,
    paint_marks,
    paint_roads,
    texel_size,
    town_bounds,
)
from .placement import Builder, Things
from .road_network import Strip, driving, read_road_network

MASK_TEXEL_M = 0.25
MOST_MASK_TEXELS = 16_000_000


def build_scenery(town: Town) -> Scenery:
    """Ground, buildings, trees and street furniture of a town (about a second; 100 MB at the peak).

    Heights of the road network are left out: everything stands on z = 0. TownError for an unusable OpenDRIVE text.
    """
    strips = read_road_network(town.opendrive)
    look, rng = look_of(town.style), Random(town.seed)
    low, high = town_bounds(strips)
    raster = Raster(low, high, texel_size(low, high), int(look.base))
    area = float(np.prod(high - low))
    mask_texel = max(MASK_TEXEL_M, (area / MOST_MASK_TEXELS) ** 0.5)
    mask_raster = Raster(low, high, mask_texel, 0)
    land = Land(keep_clear(mask_raster, strips), mask_raster.low, mask_texel)
    builder = Builder(rng, look, land, raster)
    _place(builder, strips, low, high, look)
    ground = paint_roads(raster, strips, look)
    pen = Pen(ground, raster.low, raster.texel_m)
    paint_marks(pen, strips)
    paint_crossings(pen, strips, look.zebra)
    return _scenery(builder.things, ground, raster)


def _place(builder: Builder, strips: Sequence[Strip], low: np.ndarray, high: np.ndarray, look: Look) -> None:
    """Everything that stands, the important first: what comes later gets the places that are left."""
    sides = frontages(strips)
    if look.fields:
        builder.fields(low, high)
    builder.close_dead_ends(dead_ends(strips))
    for row in range(look.rows):
        for side in sides:
            builder.build_along(side, row)
    for side in sides:
        builder.lamps_along(side)
    for side in sides:
        builder.trees_along(side)
    for side in sides:
        builder.fence_along(side)
        builder.clutter_along(side)
    near = np.concatenate([s.centre[::6] for s in driving(strips)])
    builder.scatter_trees(near, low + 2, high - 2)


def dead_ends(strips: Sequence[Strip]) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """(middle, outward direction, half width) of the roads' ends that no other road touches."""
    lanes = [s for s in driving(strips)]
    tips = np.concatenate([np.stack([s.centre[0], s.centre[-1]]) for s in lanes])
    ends: dict[tuple[int, bool], list[np.ndarray]] = {}
    direction: dict[tuple[int, bool], np.ndarray] = {}
    for k, strip in enumerate(lanes):
        for at_end, station in ((False, 0), (True, -1)):
            tip = strip.centre[station]
            others = np.delete(tips, 2 * k + at_end, axis=0)
            if strip.junction < 0 and np.hypot(*(others - tip).T).min() > 1.0:
                ends.setdefault((strip.road, at_end), []).extend([strip.inner[station], strip.outer[station]])
                step = strip.centre[-1] - strip.centre[-2] if at_end else strip.centre[0] - strip.centre[1]
                direction[strip.road, at_end] = step / np.hypot(*step)
    found = []
    for key, points in sorted(ends.items(), key=lambda item: item[0]):
        p = np.array(points)
        spread = np.hypot(*(p[:, None] - p[None]).transpose(2, 0, 1))
        a, b = np.unravel_index(int(spread.argmax()), spread.shape)
        found.append(((p[a] + p[b]) / 2, direction[key], float(spread.max()) / 2 + 0.5))
    return found


def _scenery(things: Things, ground: np.ndarray, raster: Raster) -> Scenery:
    boxes = np.array(things.boxes, np.float64).reshape(-1, 15)
    trees = np.array(things.trees, np.float64).reshape(-1, 9)
    return Scenery(
        ground=ground,
        origin_xy=(float(raster.low[0]), float(raster.low[1])),
        texel_m=raster.texel_m,
        box_center=boxes[:, 0:3].astype(np.float32),
        box_half=boxes[:, 3:6].astype(np.float32),
        box_yaw_deg=boxes[:, 6].astype(np.float32),
        box_rgb=boxes[:, 7:10].astype(np.float32),
        box_facade=boxes[:, 10].astype(np.int32),
        box_roof_rgb=boxes[:, 11:14].astype(np.float32),
        box_label=boxes[:, 14].astype(np.uint8),
        tree_xy=trees[:, 0:2].astype(np.float32),
        tree_trunk=trees[:, 2:4].astype(np.float32),
        tree_canopy=trees[:, 4:6].astype(np.float32),
        tree_rgb=trees[:, 6:9].astype(np.float32),
    )


__all__ = ["MARGIN_M", "Ground", "build_scenery", "dead_ends"]
