"""A town's scenery, made from its OpenDRIVE text and its style alone, bit for bit the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np

from ..scenery import Scenery, Town
from . import furniture, open_land
from .looks import look_of
from .lots import Land, frontages
from .painting import (
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

    The world is flat. Left out of the road network are elevation, superelevation and crossfall, lane heights, and the
    objects and signals of the file: hills become plains, and a bridge meets the road below it at grade, where nothing
    stands on either. TownError for an unusable OpenDRIVE text.
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
    _place(builder, strips, low, high)
    ground = paint_roads(raster, strips, look)
    pen = Pen(ground, raster.low, raster.texel_m)
    paint_marks(pen, strips)
    paint_crossings(pen, strips, look.zebra)
    return _scenery(builder.things, ground, raster)


def _place(builder: Builder, strips: Sequence[Strip], low: np.ndarray, high: np.ndarray) -> None:
    """Everything that stands, the important first: what comes later gets the places that are left."""
    sides = frontages(strips)
    near = np.concatenate([s.centre[::6] for s in driving(strips)])
    open_land.fields(builder, low, high)
    furniture.close_dead_ends(builder, strips)
    furniture.traffic_lights(builder, strips)
    for row in range(builder.look.rows):
        for side in sides:
            builder.build_along(side, row)
    for place in (furniture.lamps_along, furniture.trees_along, furniture.fence_along, furniture.clutter_along):
        for side in sides:
            place(builder, side)
    furniture.trees_on_medians(builder, strips)
    open_land.scatter_blocks(builder, near, low + 2, high - 2)
    open_land.scatter_trees(builder, near, low + 2, high - 2)


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
