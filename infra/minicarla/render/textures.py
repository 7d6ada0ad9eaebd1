"""What surfaces look like: ground colours and their mip pyramid, facades, noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from infra.minicarla.render.kernels import kernel
from infra.minicarla.scenery import Ground, Label

GROUND_RGB = np.zeros((16, 3), np.uint8)
"""sRGB of each `Ground`."""
GROUND_TAG = np.full(16, int(Label.TERRAIN), np.uint8)
"""CARLA's tag of each `Ground`."""
for _kind, _rgb, _tag in (
    (Ground.GRASS, (84, 103, 56), Label.TERRAIN), (Ground.ROAD, (74, 75, 78), Label.ROADS),
    (Ground.SIDEWALK, (138, 134, 127), Label.SIDEWALKS), (Ground.KERB, (158, 156, 150), Label.SIDEWALKS),
    (Ground.LINE_WHITE, (224, 224, 220), Label.ROAD_LINES), (Ground.LINE_YELLOW, (222, 178, 52), Label.ROAD_LINES),
    (Ground.FIELD, (146, 130, 72), Label.TERRAIN), (Ground.GRAVEL, (136, 126, 112), Label.TERRAIN),
    (Ground.PLAZA, (166, 156, 142), Label.SIDEWALKS),
):  # fmt: skip
    GROUND_RGB[_kind], GROUND_TAG[_kind] = _rgb, _tag

FACADES = 16
FACADE_SIDE = 256
FACADE_M = 12.0
"""A facade tile is 12 m x 12 m: four floors of four windows."""


class Pyramid(NamedTuple):
    """A mip pyramid in one array; level 0 is the picture's own size."""

    texels: np.ndarray
    """uint8, levels one behind the other, channels last"""
    start: np.ndarray
    """[L] where a level begins"""
    rows: np.ndarray
    columns: np.ndarray


def shrunk(picture: np.ndarray) -> np.ndarray:
    """Return the mean of 2x2 texels, [H/2, W/2, C], odd edges dropped."""
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    whole = picture[:height, :width].astype(np.uint16)
    return ((whole[::2, ::2] + whole[1::2, ::2] + whole[::2, 1::2] + whole[1::2, 1::2] + 2) >> 2).astype(np.uint8)


def pyramid(picture: np.ndarray) -> Pyramid:
    levels = [picture]
    while min(levels[-1].shape[:2]) >= 4:
        levels.append(shrunk(levels[-1]))
    start = np.cumsum([0, *(level.size for level in levels)])[:-1]
    rows, columns = (np.array([level.shape[axis] for level in levels]) for axis in (0, 1))
    return Pyramid(np.concatenate([level.reshape(-1) for level in levels]), start, rows, columns)


def ground_pyramid(ground: np.ndarray) -> Pyramid:
    """Return colours of the ground from a quarter of its resolution on; near by, the ids themselves are drawn."""
    quarter = np.empty((ground.shape[0] // 4, ground.shape[1] // 4, 3), np.uint8)
    mean_colours(ground, GROUND_RGB, quarter)
    return pyramid(quarter)


@kernel
def mean_colours(ground, rgb, out):
    """Write the mean colour of every 4 x 4 texels."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            r = g = b = 8
            for k in range(16):
                kind = ground[4 * i + (k >> 2), 4 * j + (k & 3)]
                r, g, b = r + rgb[kind, 0], g + rgb[kind, 1], b + rgb[kind, 2]
            out[i, j, 0], out[i, j, 1], out[i, j, 2] = r >> 4, g >> 4, b >> 4


def noise(octaves: Sequence[int] = range(2, 8), fade: float = 2.0, seed: int = 9) -> np.ndarray:
    """Return [256, 256] float32 value noise in 0..1 that repeats seamlessly; each octave `fade` times weaker."""
    rng = np.random.default_rng(seed)
    total = np.zeros((256, 256))
    for number, octave in enumerate(octaves):
        count = 2**octave
        grid = rng.random((count, count))
        position = np.arange(256) * count / 256
        low = position.astype(int)
        fraction = position - low
        fraction = fraction * fraction * (3 - 2 * fraction)
        high = (low + 1) % count
        left, right = grid[:, low], grid[:, high]
        rows = left * (1 - fraction) + right * fraction
        total += fade**-number * (rows[low] * (1 - fraction[:, None]) + rows[high] * fraction[:, None])
    return ((total - total.min()) / np.ptp(total)).astype(np.float32)


def facade_tile(number: int) -> np.ndarray:
    """Return [256, 256, 2] uint8: brightness of the wall and share of window glass, of one pattern."""
    rng = np.random.default_rng(100 + number)
    side, cell = FACADE_SIDE, FACADE_SIDE // 4
    wall = np.full((side, side), 205.0)
    glass = np.zeros((side, side))
    if number % 3 == 1:
        wall[np.arange(side) % 8 == 0] *= 0.86  # courses of brick
    if number % 3 == 2:
        wall[np.arange(side) % cell < 5] *= 0.80  # floor slabs
    wall += rng.normal(0, 4, wall.shape)
    ribbon = number % 4 == 0
    width = cell if ribbon else int(cell * rng.uniform(0.38, 0.72))
    height = int(cell * rng.uniform(0.42, 0.66))
    for row in range(4):
        for column in range(4):
            top, left = row * cell + (cell - height) // 2, column * cell + (cell - width) // 2
            wall[max(top - 3, 0) : top + height + 3, max(left - 3, 0) : left + width + 3] *= 1.10  # frame
            shade = rng.uniform(0.75, 1.0)
            glass[top : top + height, left : left + width] = 255 * shade
            glass[top : top + height, left + width // 2 - 1 : left + width // 2 + 1] = 60
    return np.stack([wall, glass], -1).clip(0, 255).astype(np.uint8)


@lru_cache
def facades() -> Pyramid:
    """Return all patterns side by side as one pyramid of [P * side, side] texels, level by level."""
    tiles = [pyramid(facade_tile(number)) for number in range(FACADES)]
    size = len(tiles[0].texels)
    return Pyramid(np.concatenate([tile.texels for tile in tiles]), tiles[0].start, tiles[0].rows, np.array([size]))
