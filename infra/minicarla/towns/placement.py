"""Places buildings, trees, lamps, fences and clutter along the streets of any road network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

import numpy as np

from ..scenery import Ground, Label
from .looks import RGB, Look
from .lots import Frontage, Land
from .painting import FREE, KEEP_CLEAR, WALK, Raster

TREE_ROOM_M = 0.35


@dataclass
class Things:
    """Rows for the Scenery's arrays."""

    boxes: list[tuple[float, ...]] = field(default_factory=list)
    """x, y, z of the centre, half x, y, z, yaw [deg], rgb, facade, roof rgb, label"""
    trees: list[tuple[float, ...]] = field(default_factory=list)
    """x, y, height up to the canopy's centre, trunk radius, canopy half width and half height, rgb"""
    buildings: int = 0

    def box(
        self, xy: np.ndarray, z: float, half: tuple[float, float, float], yaw: float, rgb: RGB, label: Label,
        facade: int = 0, roof: RGB | None = None,
    ) -> None:  # fmt: skip
        """A box whose underside lies at height z; yaw in radians."""
        centre = (float(xy[0]), float(xy[1]), z + half[2])
        self.boxes.append((*centre, *half, math.degrees(yaw), *rgb, facade, *(roof or rgb), int(label)))


def shade(rng: Random, rgb: RGB, spread: float = 0.06) -> RGB:
    """The colour, a little lighter or darker and a little off in hue."""
    light = 1 + rng.uniform(-spread, spread)
    r, g, b = (min(max(c * light + rng.uniform(-spread, spread) / 4, 0.0), 1.0) for c in rgb)
    return r, g, b


@dataclass
class Builder:
    """Places things for one town; draws everything from one generator, in the file's order of roads."""

    rng: Random
    look: Look
    land: Land
    lots: Raster
    """Where lots and fields are painted before the roads are."""
    things: Things = field(default_factory=Things)

    def between(self, pair: tuple[float, float]) -> float:
        return self.rng.uniform(*pair)

    # --- buildings -------------------------------------------------------------------------------------------------

    def build_along(self, frontage: Frontage, row: int) -> None:
        """A row of buildings along one side of a street; row 1 stands behind row 0."""
        look = self.look
        s = self.between((0, 3)) + self.between((0, look.gap[1] / 2))
        while s < frontage.length:
            width, depth = self.between(look.width), self.between(look.depth)
            setback = self.between(look.setback) + row * (look.depth[1] + self.between((6, 12)))
            if self.rng.random() > look.share:
                s += width
                continue
            placed = False
            for shrink in (1.0, 0.75):
                w, d = width * shrink, depth * shrink
                place, along, out = frontage.at(s + w / 2)
                centre = place + out * (setback + d / 2)
                yaw = math.atan2(along[1], along[0])
                if s + w * 0.6 < frontage.length and self.land.take(centre, (w / 2, d / 2), yaw, room=0.4):
                    self.lot(place, centre, out, along, w, row)
                    self.building(centre, w, d, yaw)
                    s += w + self.between(look.gap)
                    placed = True
                    break
            if not placed:
                s += 3.0

    def lot(self, place: np.ndarray, centre: np.ndarray, out: np.ndarray, along: np.ndarray, width: float, row: int) -> None:
        """The ground from the street to the middle of the building: all of a city's front, a drive before a house."""
        if row or self.look.lot == self.look.base:
            return
        whole = self.look.lot in (Ground.PLAZA, Ground.SIDEWALK) or self.look.roof == "flat"
        half = width / 2 + 1.5 if whole else 1.6
        side = along * half
        shift = along * (0.0 if whole else width / 4)
        front, back = place + shift - out, centre + shift
        self.lots.polygon(np.array([front - side, front + side, back + side, back - side]), int(self.look.lot))

    def building(self, centre: np.ndarray, width: float, depth: float, yaw: float) -> None:
        """One building: body and roof in the town's manner."""
        look, rng, things = self.look, self.rng, self.things
        floors = rng.randint(*look.floors)
        height = floors * look.floor_m + rng.uniform(0, 0.8)
        wall, roof = shade(rng, rng.choice(look.walls)), shade(rng, rng.choice(look.roofs))
        facade = rng.choice(look.facades)
        things.buildings += 1
        half = (width / 2, depth / 2, height / 2)
        if look.roof == "tower" and floors > 12:
            waist = rng.uniform(0.55, 0.8)
            things.box(centre, 0.0, (*half[:2], height * waist / 2), yaw, wall, Label.BUILDINGS, facade, roof)
            share = rng.uniform(0.6, 0.8)
            upper = (half[0] * share, half[1] * share, height * (1 - waist) / 2)
            things.box(centre, height * waist, upper, yaw, wall, Label.BUILDINGS, facade, roof)
        else:
            things.box(centre, 0.0, half, yaw, wall, Label.BUILDINGS, facade, roof)
        self._roof(centre, half, height, yaw, wall, roof, floors)

    def _roof(
        self, centre: np.ndarray, half: tuple[float, float, float], height: float, yaw: float, wall: RGB, roof: RGB,
        floors: int,
    ) -> None:  # fmt: skip
        look, rng, things = self.look, self.rng, self.things
        along = np.array([math.cos(yaw), math.sin(yaw)])
        square = np.array([-along[1], along[0]])
        dark: RGB = (roof[0] * 0.8, roof[1] * 0.8, roof[2] * 0.8)
        if look.roof == "ridge":
            # Three steps make a pitched roof; the lowest overhangs the walls.
            for k, (out, rise) in enumerate(((1.04, 0.7), (0.72, 0.9), (0.36, 0.8))):
                z = height + (0.0, 0.7, 1.6)[k]
                things.box(centre, z, (half[0] * (1.03 - 0.06 * k), half[1] * out, rise / 2), yaw, roof, Label.BUILDINGS)
            spot = centre + along * half[0] * rng.choice((-0.5, 0.5)) + square * half[1] * 0.3
            things.box(spot, height, (0.4, 0.4, 1.5), yaw, wall, Label.BUILDINGS, 0, dark)
        elif look.roof == "tank":
            things.box(centre, height, (half[0] + 0.1, half[1] + 0.1, 0.25), yaw, wall, Label.BUILDINGS)
            spot = centre + along * half[0] * rng.uniform(-0.6, 0.6) + square * half[1] * rng.uniform(-0.6, 0.6)
            things.box(spot, height + 0.5, (1.0, 1.0, 0.8), yaw, (0.85, 0.85, 0.83), Label.BUILDINGS)
        elif rng.random() < 0.8:
            rise = 1.2 + 0.12 * floors
            spot = centre + along * half[0] * rng.uniform(-0.35, 0.35) + square * half[1] * rng.uniform(-0.35, 0.35)
            things.box(spot, height, (half[0] * 0.35, half[1] * 0.35, rise / 2), yaw, dark, Label.BUILDINGS)

    # --- along the street ------------------------------------------------------------------------------------------

    def stand(self, place: np.ndarray, most: int = WALK, radius: float = TREE_ROOM_M) -> bool:
        """Claims a spot for something slim."""
        return self.land.take(place, (radius, radius), 0.0, most)

    def tree(self, place: np.ndarray, clear_m: float = 0.0) -> None:
        """A tree; its canopy ends `clear_m` above the ground or higher."""
        rng, look = self.rng, self.look
        tall = self.between(look.tree_m)
        half_height = tall * rng.uniform(0.30, 0.40)
        middle = max(tall - half_height, clear_m + half_height)
        wide = tall * look.tree_slim * rng.uniform(0.85, 1.15)
        rgb = shade(rng, rng.choice(look.leaves), 0.12)
        self.things.trees.append((*place.tolist(), middle, 0.12 + tall * 0.012, wide, half_height, *rgb))

    def trees_along(self, frontage: Frontage) -> None:
        spacing = self.look.street_tree_m
        if not spacing or frontage.length < 8:
            return
        inset = -0.6 if frontage.walk_m >= 2.4 else 1.0
        s = self.between((3, spacing))
        while s < frontage.length - 2:
            place, _, out = frontage.at(s)
            if self.stand(place + out * inset):
                self.tree(place + out * inset, clear_m=2.6)
            s += spacing * self.rng.uniform(0.85, 1.15)

    def lamps_along(self, frontage: Frontage) -> None:
        spacing = self.look.lamp_m
        if not spacing or frontage.length < 12:
            return
        s = spacing * self.rng.uniform(0.2, 0.5)
        while s < frontage.length - 2:
            place, along, out = frontage.at(s)
            foot = place - out * 0.35 if frontage.walk_m >= 2.2 else place + out * 0.9
            if self.stand(foot, radius=0.2):
                yaw, rgb = math.atan2(along[1], along[0]), self.look.lamp_rgb
                self.things.box(foot, 0.0, (0.07, 0.07, 3.1), yaw, rgb, Label.POLES)
                self.things.box(foot - out * 0.7, 6.1, (0.09, 0.8, 0.06), yaw, rgb, Label.POLES)
            s += spacing

    def fence_along(self, frontage: Frontage) -> None:
        """Hedges, walls or fences before the gardens, with gaps for the drives."""
        kind = self.look.fence
        if kind == "none":
            return
        height, thick, rgb, label = {
            "hedge": (1.1, 0.35, (0.20, 0.36, 0.15), Label.VEGETATION),
            "wall": (1.0, 0.2, (0.62, 0.58, 0.52), Label.WALLS),
            "picket": (0.9, 0.06, (0.92, 0.92, 0.90), Label.FENCES),
            "rail": (1.1, 0.06, (0.45, 0.40, 0.34), Label.FENCES),
        }[kind]
        s = self.between((2, 8))
        while s < frontage.length - 4:
            length = self.between((5, 9))
            place, along, out = frontage.at(s + length / 2)
            spot = place + out * (0.7 if frontage.walk_m else 1.9)
            if self.rng.random() < 0.7 and self.land.take(spot, (length / 2, thick / 2), math.atan2(along[1], along[0]), WALK):
                yaw, tone = math.atan2(along[1], along[0]), shade(self.rng, rgb)
                if kind in ("rail", "picket"):
                    for z in (0.35, height - 0.2):
                        self.things.box(spot, z, (length / 2, thick / 2, 0.07), yaw, tone, label)
                    for k in range(4):
                        post = spot + along * length * (k / 3 - 0.5)
                        self.things.box(post, 0.0, (0.06, 0.06, height / 2), yaw, tone, label)
                else:
                    self.things.box(spot, 0.0, (length / 2, thick / 2, height / 2), yaw, tone, label)
            s += length + self.rng.choice((0.3, 0.3, 4.0))

    def clutter_along(self, frontage: Frontage) -> None:
        kind = self.look.clutter
        if kind == "none" or frontage.length < 15:
            return
        s = self.between((5, 25))
        while s < frontage.length - 3:
            place, along, out = frontage.at(s)
            yaw = math.atan2(along[1], along[0])
            if kind == "benches":
                self._put(place + out * 0.9, (0.8, 0.25, 0.24), yaw, (0.42, 0.28, 0.18), WALK)
            elif kind == "containers":
                colour = self.rng.choice(((0.65, 0.22, 0.15), (0.15, 0.35, 0.55), (0.25, 0.45, 0.28), (0.75, 0.55, 0.15)))
                spot = place + out * self.between((5, 9))
                if self._put(spot, (3.0, 1.22, 1.3), yaw + self.rng.choice((0, math.pi / 2)), colour, FREE):
                    last = self.things.boxes[-1]
                    if self.rng.random() < 0.4:
                        self.things.boxes.append((*last[:2], 3.9, *last[3:]))
            elif kind == "bales":
                self._put(place + out * self.between((5, 18)), (0.9, 0.7, 0.6), self.between((0, 3)), (0.78, 0.68, 0.38), FREE)
            elif kind == "rocks":
                size = self.between((0.3, 1.0))
                spot = place + out * self.between((3, 14))
                self._put(spot, (size, size * 0.8, size * 0.6), self.between((0, 3)), (0.50, 0.46, 0.42), FREE)
            s += self.between((18, 45))

    def _put(self, spot: np.ndarray, half: tuple[float, float, float], yaw: float, rgb: RGB, most: int) -> bool:
        if not self.land.take(spot, half[:2], yaw, most, room=0.2):
            return False
        self.things.box(spot, 0.0, half, yaw, shade(self.rng, rgb), Label.STATIC)
        return True

    # --- open land -------------------------------------------------------------------------------------------------

    def fields(self, low: np.ndarray, high: np.ndarray) -> None:
        """A patchwork of fields, painted before everything else."""
        cell = 55.0
        x = low[0] - self.between((0, cell))
        while x < high[0]:
            y = low[1] - self.between((0, cell))
            wide = cell * self.rng.uniform(0.7, 1.3)
            while y < high[1]:
                deep = cell * self.rng.uniform(0.6, 1.4)
                if self.rng.random() < self.look.fields:
                    corners = np.array([[x, y], [x + wide - 3, y + 2], [x + wide - 2, y + deep - 3], [x + 1, y + deep - 2]])
                    self.lots.polygon(corners, int(self.rng.choice(self.look.field_kinds)))
                y += deep
            x += wide

    def scatter_trees(self, near: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        """Trees on open land: near the streets by `garden_trees`, elsewhere by `wood`. `near`: street points [N, 2]."""
        area = float(np.prod(high - low))
        densest = max(self.look.garden_trees, self.look.wood)
        for _ in range(min(int(area / 100 * densest), 4000)):
            place = np.array([self.rng.uniform(low[0], high[0]), self.rng.uniform(low[1], high[1])])
            distance = float(np.hypot(*(near - place).T).min())
            density = self.look.garden_trees if distance < 30 else self.look.wood
            if distance > 3.5 and self.rng.random() < density / densest and self.stand(place, FREE, 1.0):
                self.tree(place, clear_m=0.6)

    def close_dead_ends(self, ends: list[tuple[np.ndarray, np.ndarray, float]]) -> None:
        """A striped barrier 3 m behind each road that ends: (middle, direction out, half width)."""
        for middle, out, half in ends:
            spot, yaw = middle + out * 3.0, math.atan2(out[1], out[0]) + math.pi / 2
            # 3 m behind the road's end lies inside its own clearance, so the land isn't asked.
            along = np.array([math.cos(yaw), math.sin(yaw)])
            pieces = max(2, round(half))
            for k in range(pieces):
                place = spot + along * half * ((2 * k + 1) / pieces - 1)
                values = self.land.values(self.land.rectangle(place, (half / pieces, 0.2), yaw))
                if (values < KEEP_CLEAR).any() or True:
                    rgb = ((0.80, 0.14, 0.12), (0.92, 0.92, 0.90))[k % 2]
                    self.things.box(place, 0.35, (half / pieces, 0.06, 0.25), yaw, rgb, Label.STATIC)
