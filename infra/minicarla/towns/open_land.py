"""The land away from the streets: fields, gardens, woods, and the blocks that close a city's horizon."""

from __future__ import annotations

import math

import numpy as np

from ..scenery import Label
from .painting import FREE
from .placement import Builder, shade

GARDEN_M, FAR_M = 30.0, 46.0
"""Up to the first distance from the streets the land belongs to the gardens; from the second on it is far."""


def fields(builder: Builder, low: np.ndarray, high: np.ndarray) -> None:
    """A patchwork of fields; the roads are painted over it."""
    cell, rng = 55.0, builder.rng
    x = low[0] - builder.between((0, cell))
    while x < high[0]:
        y = low[1] - builder.between((0, cell))
        wide = cell * rng.uniform(0.7, 1.3)
        while y < high[1]:
            deep = cell * rng.uniform(0.6, 1.4)
            if rng.random() < builder.look.fields:
                corners = [[x, y], [x + wide - 3, y + 2], [x + wide - 2, y + deep - 3], [x + 1, y + deep - 2]]
                builder.lots.polygon(np.array(corners), int(rng.choice(builder.look.field_kinds)))
            y += deep
        x += wide


def distances(places: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Distance [N] of places [N, 2] to the nearest of the street points near [M, 2]."""
    return np.array([math.sqrt(float(((near - p) ** 2).sum(1).min())) for p in places])


def scatter_blocks(builder: Builder, near: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Plain large buildings on the far land, so that a city goes on behind its last street."""
    look, rng = builder.look, builder.rng
    count = int(look.far_blocks * float(np.prod(high - low)) / 10_000)
    places = np.array([[rng.uniform(low[0], high[0]), rng.uniform(low[1], high[1])] for _ in range(count)]).reshape(
        -1, 2
    )
    for place, distance in zip(places, distances(places, near), strict=True):
        half = (builder.between((8, 15)), builder.between((8, 15)))
        yaw = rng.choice((0.0, 0.0, math.pi / 2, rng.uniform(0, math.pi)))
        height = look.floor_m * rng.uniform(look.floors[0], look.floors[1]) * rng.uniform(0.9, 1.3)
        wall, roof, facade = rng.choice(look.walls), rng.choice(look.roofs), rng.choice(look.facades)
        if distance > FAR_M and builder.land.take(place, half, yaw, FREE, room=2.0):
            builder.things.buildings += 1
            tone = shade(rng, wall)
            builder.things.box(place, 0.0, (*half, height / 2), yaw, tone, Label.BUILDINGS, facade, roof)


def scatter_trees(builder: Builder, near: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Trees on open land, by the look's densities in the gardens, in between, and far off."""
    look, rng = builder.look, builder.rng
    densest = max(look.garden_trees, look.wood, look.far_trees)
    count = min(int(float(np.prod(high - low)) / 100 * densest), 5000)
    places = np.array([[rng.uniform(low[0], high[0]), rng.uniform(low[1], high[1])] for _ in range(count)]).reshape(
        -1, 2
    )
    for place, distance in zip(places, distances(places, near), strict=True):
        density = look.garden_trees if distance < GARDEN_M else look.wood if distance < FAR_M else look.far_trees
        if distance > 3.5 and rng.random() < density / densest and builder.stand(place, FREE, 0.8):
            builder.tree(place, clear_m=0.6)
