"""The ground of a town as a raster of `Ground` ids, and the mask that keeps buildings off the roads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..scenery import Ground
from .looks import Look
from .road_network import Mark, Strip, driving

TEXEL_M = 0.05
MOST_TEXELS = 120_000_000
MARGIN_M = 45.0
DASH_M, DASH_GAP_M = 3.0, 4.5
LANE_CLEARANCE_M = 1.5
"""Nothing stands closer to a driving lane."""
KERB_M = 0.2
ISLAND_M2 = 250.0
"""Holes between a junction's lanes up to this size are paved."""

_PAINT = {
    "driving": Ground.ROAD,
    "bidirectional": Ground.ROAD,
    "parking": Ground.ROAD,
    "biking": Ground.ROAD,
    "stop": Ground.ROAD,
    "entry": Ground.ROAD,
    "exit": Ground.ROAD,
    "onRamp": Ground.ROAD,
    "offRamp": Ground.ROAD,
    "sidewalk": Ground.SIDEWALK,
    "walking": Ground.SIDEWALK,
    "curb": Ground.KERB,
    "median": Ground.GRASS,
    "border": Ground.GRASS,
}


class Raster:
    """A grid of texels over the town; x to the right (columns), y downwards (rows), as CARLA's axes seen from above."""

    def __init__(self, low_xy: np.ndarray, high_xy: np.ndarray, texel_m: float, fill: int) -> None:
        self.texel_m = texel_m
        self.low = np.floor(low_xy)
        width, height = (int(side) for side in np.ceil((high_xy - self.low) / texel_m))
        self.texels = np.full((height, width), fill, np.uint8)
        # Pillow draws into the array itself: a town's ground is a hundred megabytes.
        self.image = Image.frombuffer("L", (width, height), self.texels, "raw", "L", 0, 1)
        self.image.readonly = 0
        self.draw = ImageDraw.Draw(self.image)

    def polygon(self, xy: np.ndarray, value: int) -> None:
        """Fills a polygon [N, 2]."""
        p = (xy - self.low) / self.texel_m - 0.5
        self.draw.polygon(p.reshape(-1).tolist(), fill=value)

    def band(self, inner: np.ndarray, outer: np.ndarray, value: int, stations: int = 3) -> None:
        """Fills the band between two edges, in pieces short enough for tight bends."""
        for k in range(0, len(inner) - 1, stations):
            piece = slice(k, k + stations + 1)
            self.polygon(np.concatenate([inner[piece], outer[piece][::-1]]), value)


def widened(inner: np.ndarray, outer: np.ndarray, metres: float) -> tuple[np.ndarray, np.ndarray]:
    """Both edges moved apart by `metres` on each side."""
    across = outer - inner
    across = across / np.maximum(np.hypot(across[:, 0], across[:, 1]), 1e-6)[:, None]
    return inner - metres * across, outer + metres * across


def lengthened(xy: np.ndarray, metres: float) -> np.ndarray:
    """The polyline with its first and last leg drawn out by `metres`."""
    first, last = xy[0] - xy[1], xy[-1] - xy[-2]
    ends = [v / max(float(np.hypot(*v)), 1e-6) * metres for v in (first, last)]
    return np.concatenate([[xy[0] + ends[0]], xy, [xy[-1] + ends[1]]])


def texel_size(low: np.ndarray, high: np.ndarray) -> float:
    """5 cm, or as coarse as it takes to stay below 120 million texels."""
    area = float(np.prod(high - low + 1))
    return max(TEXEL_M, math.ceil(math.sqrt(area / MOST_TEXELS) * 100) / 100)


def town_bounds(strips: Sequence[Strip]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest x, y of the roads with a margin around."""
    edges = np.concatenate([s.outer for s in strips])
    return edges.min(0) - MARGIN_M, edges.max(0) + MARGIN_M


def paint_roads(raster: Raster, strips: Sequence[Strip], look: Look) -> np.ndarray:
    """Paints everything that belongs to the roads; returns the finished ground [H, W] uint8."""
    for kinds in (("sidewalk", "walking"), ("shoulder", "median", "border", "curb")):
        for strip in strips:
            if strip.kind in kinds:
                value = look.shoulder if strip.kind == "shoulder" else _PAINT[strip.kind]
                raster.band(strip.inner, strip.outer, int(value))
    for strip in strips:
        if strip.kind in ("sidewalk", "walking", "median"):
            for edge, other in ((strip.inner, strip.outer), (strip.outer, strip.inner)):
                if edge is strip.inner or strip.kind == "median":
                    across = other - edge
                    across = across / np.maximum(np.hypot(across[:, 0], across[:, 1]), 1e-6)[:, None]
                    raster.band(edge, edge + KERB_M * across, int(Ground.KERB))
    for strip in strips:
        if _PAINT.get(strip.kind) == Ground.ROAD:
            raster.band(strip.inner, strip.outer, int(Ground.ROAD))
    ground = raster.texels
    for box in junction_boxes(raster, strips):
        fill_islands(ground[box], raster.texel_m, (ground[box] == Ground.ROAD), int(Ground.ROAD))
    return ground


def junction_boxes(raster: Raster, strips: Sequence[Strip]) -> list[tuple[slice, slice]]:
    """Rows and columns that each junction covers, by junction id."""
    inside: dict[int, list[np.ndarray]] = {}
    for strip in driving(strips):
        if strip.junction >= 0:
            inside.setdefault(strip.junction, []).extend([strip.inner, strip.outer])
    boxes = []
    width, height = raster.image.size
    for junction in sorted(inside):
        points = (np.concatenate(inside[junction]) - raster.low) / raster.texel_m
        low = np.maximum(np.floor(points.min(0)).astype(int) - 3, 0)
        high = np.ceil(points.max(0)).astype(int) + 3
        boxes.append((slice(low[1], min(high[1], height)), slice(low[0], min(high[0], width))))
    return boxes


def without_holes(solid: np.ndarray) -> np.ndarray:
    """`solid` [h, w] bool with the places that it encloses; corners do not let through."""
    outside = ~solid
    outside[1:-1, 1:-1] = False
    while True:
        grown = spread(spread(outside, solid).T, solid.T).T
        if np.array_equal(grown, outside):
            return ~outside
        outside = grown


def spread(marked: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """`marked` [h, w] bool, spread along the rows as far as nothing solid is in the way."""
    walls = solid.copy()
    walls[:, 0] = True  # a row does not go on in the next
    run = np.cumsum(walls).reshape(walls.shape)
    reached = np.zeros(int(run[-1, -1]) + 1, bool)
    reached[run[marked]] = True
    return reached[run] & ~solid


def fill_islands(ground: np.ndarray, texel_m: float, solid: np.ndarray, value: int) -> None:
    """Paves, in place, the open land enclosed by `solid` [h, w] if it is small."""
    step = max(1, round(0.4 / texel_m))
    coarse = solid[::step, ::step]
    holes = without_holes(coarse) & ~coarse
    if not holes.any() or holes.sum() * (step * texel_m) ** 2 > ISLAND_M2:
        return
    # One coarse cell more on each side, so that no rim of the old ground is left along the lanes.
    grown = holes.copy()
    for axis in (0, 1):
        grown |= np.roll(grown, 1, axis) | np.roll(grown, -1, axis)
    fine = np.repeat(np.repeat(grown, step, 0), step, 1)[: ground.shape[0], : ground.shape[1]]
    ground[fine & (ground != Ground.SIDEWALK) & (ground != Ground.KERB)] = value


class Pen:
    """Draws lines into the finished ground by setting the texels under densely spaced points."""

    def __init__(self, ground: np.ndarray, low: np.ndarray, texel_m: float) -> None:
        self.ground, self.low, self.texel_m = ground, low, texel_m

    def line(self, xy: np.ndarray, width_m: float, value: int, start: float = 0.0, end: float = math.inf,
             dash: tuple[float, float] | None = None, shift_m: float = 0.0) -> None:  # fmt: skip
        """A line along the polyline xy [N, 2] from `start` to `end` metres of it, moved `shift_m` to its right."""
        legs = np.hypot(*np.diff(xy, axis=0).T)
        along = np.concatenate([[0.0], np.cumsum(legs)])
        step = self.texel_m / 2
        stations = np.arange(start, min(end, along[-1]), step)
        if dash:
            stations = stations[np.mod(stations - start, sum(dash)) < dash[0]]
        if not len(stations):
            return
        x, y = (np.interp(stations, along, xy[:, k]) for k in (0, 1))
        leg = np.clip(np.searchsorted(along, stations, side="right") - 1, 0, len(legs) - 1)
        direction = np.diff(xy, axis=0)[leg] / np.maximum(legs[leg], 1e-9)[:, None]
        half = max(width_m / 2 - self.texel_m / 4, 0.0)
        offsets = np.linspace(-half, half, max(1, math.ceil(2 * half / step) + 1)) + shift_m
        self.points(
            (x[:, None] - direction[:, 1:2] * offsets).ravel(),
            (y[:, None] + direction[:, 0:1] * offsets).ravel(),
            value,
        )

    def points(self, x: np.ndarray, y: np.ndarray, value: int) -> None:
        """Sets the texels under the points."""
        ix = np.floor((x - self.low[0]) / self.texel_m).astype(np.int64)
        iy = np.floor((y - self.low[1]) / self.texel_m).astype(np.int64)
        inside = (ix >= 0) & (iy >= 0) & (ix < self.ground.shape[1]) & (iy < self.ground.shape[0])
        self.ground[iy[inside], ix[inside]] = value


def paint_marks(pen: Pen, strips: Iterable[Strip]) -> None:
    """Lane lines, outside junctions."""
    for strip in strips:
        if strip.junction >= 0:
            continue
        for mark in strip.marks:
            value = int(Ground.LINE_YELLOW if mark.colour == "yellow" else Ground.LINE_WHITE)
            for shift, dash in _strokes(mark):
                pen.line(strip.outer, mark.width_m, value, mark.start_m, mark.end_m, dash, shift)


def _strokes(mark: Mark) -> list[tuple[float, tuple[float, float] | None]]:
    """(sideways shift, dash) of each line that a mark consists of."""
    broken = (DASH_M, DASH_GAP_M)
    if mark.kind in ("curb", "grass", "edge", "custom", "botts dots"):
        return []
    parts = mark.kind.split()
    if len(parts) == 2:
        apart = max(0.1, mark.width_m)
        # OpenDRIVE names the left line first.
        return [(side * apart, broken if part == "broken" else None) for side, part in zip((-1, 1), parts, strict=True)]
    return [(0.0, broken if parts == ["broken"] else None)]


def paint_crossings(pen: Pen, strips: Sequence[Strip], zebra: bool) -> None:
    """Stop lines on all lanes that lead into junctions, and zebra stripes across the roads' ends."""
    roads_with_walks = {s.road for s in strips if s.kind in ("sidewalk", "walking")}
    leading_in: dict[tuple[int, bool], list[Strip]] = {}
    for strip in strips:
        if strip.kind == "driving" and strip.ends_in_junction and strip.s[-1] > 12:
            leading_in.setdefault((strip.road, strip.forward), []).append(strip)
            with_zebra = zebra and strip.road in roads_with_walks
            _across(pen, strip, 4.2 if with_zebra else 1.0, 0.4)
    if not zebra:
        return
    for strip in strips:
        ends = {key[1] for key in leading_in if key[0] == strip.road}
        if strip.kind != "driving" or strip.junction >= 0 or strip.road not in roads_with_walks or strip.s[-1] <= 12:
            continue
        for forward in sorted(ends):
            _zebra(pen, strip, at_end=forward)


def _station(strip: Strip, metres: float, at_end: bool) -> tuple[np.ndarray, np.ndarray]:
    """Inner and outer edge [2] that many metres from the strip's start or end."""
    s = strip.s[-1] - metres if at_end else metres
    return tuple(  # type: ignore[return-value]
        np.array([np.interp(s, strip.s, edge[:, k]) for k in (0, 1)]) for edge in (strip.inner, strip.outer)
    )


def _across(pen: Pen, strip: Strip, before_m: float, width_m: float) -> None:
    inner, outer = _station(strip, before_m, strip.forward)
    across = outer - inner
    span = np.array([inner + 0.04 * across, inner + 0.96 * across])
    pen.line(span, width_m, int(Ground.LINE_WHITE))


def _zebra(pen: Pen, strip: Strip, at_end: bool, start_m: float = 0.6, length_m: float = 2.8) -> None:
    near, far = (_station(strip, d, at_end) for d in (start_m, start_m + length_m))
    width = float(np.hypot(*(near[1] - near[0])))
    mouth = _station(strip, 0.0, at_end)
    middle = np.array([mouth[0] + mouth[1], far[0] + far[1]]) / 2
    pen.line(middle, width + 0.2, int(Ground.ROAD))  # lane lines end at the crossing
    bars = max(2, round(width / 1.1))
    for k in range(bars):
        u = (k + 0.5) / bars
        bar = np.array([near[0] + u * (near[1] - near[0]), far[0] + u * (far[1] - far[0])])
        pen.line(bar, 0.5, int(Ground.LINE_WHITE))


FREE, WALK, KEEP_CLEAR = 0, 1, 2


def keep_clear(raster: Raster, strips: Sequence[Strip]) -> np.ndarray:
    """[H, W] uint8: 0 free, 1 sidewalks (poles and trees may stand there), 2 roads and 1.5 m around them."""
    reach = LANE_CLEARANCE_M + 0.75 * raster.texel_m
    for strip in strips:
        if strip.kind in ("sidewalk", "walking", "median", "shoulder", "border", "curb"):
            raster.band(*widened(strip.inner, strip.outer, 0.3), WALK)
    for strip in strips:
        if _PAINT.get(strip.kind) == Ground.ROAD:
            inner, outer = widened(strip.inner, strip.outer, reach)
            if strip.junction < 0:
                inner, outer = lengthened(inner, reach), lengthened(outer, reach)
            raster.band(inner, outer, KEEP_CLEAR)
    mask = raster.texels
    for box in junction_boxes(raster, strips):
        solid = mask[box] == KEEP_CLEAR
        mask[box][without_holes(solid)] = KEEP_CLEAR
    return mask
