"""Collects what stands in a town, claims the land for it, and places the buildings along the streets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

import numpy as np

from ..scenery import Ground, Label
from .looks import RGB, Look
from .lots import Frontage, Land
from .painting import WALK, Raster

TREE_ROOM_M = 0.15


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

    def lot(
        self, place: np.ndarray, centre: np.ndarray, out: np.ndarray, along: np.ndarray, width: float, row: int
    ) -> None:
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
                things.box(
                    centre, z, (half[0] * (1.03 - 0.06 * k), half[1] * out, rise / 2), yaw, roof, Label.BUILDINGS
                )
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

    # --- what the other modules place with --------------------------------------------------------------------------

    def stand(self, place: np.ndarray, most: int = WALK, radius: float = TREE_ROOM_M) -> bool:
        """Claims a spot for something slim; False where it isn't free."""
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
