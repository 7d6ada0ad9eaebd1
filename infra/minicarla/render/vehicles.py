"""Car bodies as triangle meshes, lofted from cross-sections, in a box of half size 1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from infra.minicarla.render.mesh import Mesh, Sketch
from infra.minicarla.render.parts import Part
from infra.minicarla.scenery import Shape


class Station(NamedTuple):
    """A cross-section of a body: heights from the road up, all as parts of the whole car's (0..1)."""

    x: float
    """-1 rear .. 1 front"""
    floor: float
    belt: float
    roof: float
    """Equal to belt outside the cabin."""
    width: float
    """Half width at the widest."""
    roof_width: float


COUPE = (
    Station(-1.00, 0.27, 0.47, 0.49, 0.70, 0.50),
    Station(-0.985, 0.21, 0.52, 0.535, 0.80, 0.60),
    Station(-0.93, 0.17, 0.585, 0.595, 0.88, 0.64),
    Station(-0.82, 0.15, 0.66, 0.695, 0.945, 0.63),
    Station(-0.66, 0.13, 0.69, 0.835, 0.985, 0.60),
    Station(-0.48, 0.12, 0.69, 0.925, 1.00, 0.59),
    Station(-0.28, 0.12, 0.68, 0.985, 0.99, 0.60),
    Station(-0.08, 0.12, 0.675, 1.00, 0.98, 0.61),
    Station(0.10, 0.12, 0.67, 0.975, 0.98, 0.62),
    Station(0.26, 0.12, 0.665, 0.89, 0.98, 0.64),
    Station(0.40, 0.12, 0.66, 0.775, 0.985, 0.66),
    Station(0.52, 0.12, 0.65, 0.690, 0.995, 0.68),
    Station(0.64, 0.13, 0.635, 0.665, 0.99, 0.66),
    Station(0.78, 0.14, 0.585, 0.60, 0.95, 0.60),
    Station(0.90, 0.15, 0.475, 0.485, 0.87, 0.52),
    Station(0.97, 0.17, 0.405, 0.415, 0.76, 0.44),
    Station(1.00, 0.24, 0.35, 0.36, 0.62, 0.36),
)
VAN = (
    Station(-1.00, 0.16, 0.55, 0.96, 0.94, 0.82),
    Station(-0.98, 0.12, 0.55, 0.985, 0.98, 0.84),
    Station(-0.40, 0.12, 0.55, 1.00, 1.00, 0.85),
    Station(0.30, 0.12, 0.55, 1.00, 1.00, 0.85),
    Station(0.50, 0.12, 0.54, 0.965, 1.00, 0.84),
    Station(0.64, 0.12, 0.53, 0.80, 1.00, 0.83),
    Station(0.78, 0.12, 0.52, 0.60, 0.99, 0.82),
    Station(0.92, 0.12, 0.47, 0.50, 0.95, 0.80),
    Station(1.00, 0.16, 0.36, 0.38, 0.84, 0.72),
)
TRUCK_CAB = (
    Station(0.52, 0.14, 0.48, 0.84, 0.98, 0.90),
    Station(0.90, 0.14, 0.48, 0.84, 0.99, 0.90),
    Station(0.96, 0.14, 0.47, 0.78, 0.98, 0.88),
    Station(1.00, 0.16, 0.42, 0.46, 0.95, 0.84),
)
ARCH_IN = 0.97
"""Wheels stand a little inside the flanks."""


def refined(stations: Sequence[Station], step: float = 0.05) -> list[Station]:
    """Return the stations with smooth ones between them, about `step` apart and closer at the ends."""
    table = np.array(stations)
    curve = PchipInterpolator(table[:, 0], table[:, 1:])
    places: list[float] = []
    for first, last in zip(table[:-1, 0], table[1:, 0], strict=True):
        places += list(np.linspace(first, last, max(round((last - first) / step), 1), endpoint=False))
    places.append(float(table[-1, 0]))
    return [Station(x, *curve(x)) for x in places]


def ring_of(s: Station) -> list[tuple[float, float, float]]:
    """Return a section's outline from the floor's left side over the roof to its right side (y from -1 to 1)."""
    tall, cabin = s.belt - s.floor, max(s.roof - s.belt, 0.0)
    half = [
        (0.80 * s.width, s.floor), (0.94 * s.width, s.floor + 0.07 * tall), (0.975 * s.width, s.floor + 0.28 * tall),
        (s.width, s.floor + 0.62 * tall), (0.99 * s.width, s.floor + 0.84 * tall), (0.945 * s.width, s.belt),
    ]  # fmt: skip
    side = min(s.roof_width, 0.93 * s.width)
    for up, out in ((0.30, 0.76), (0.60, 0.46), (0.84, 0.18), (0.95, 0.02), (1.0, -0.22)):
        half.append((side + (0.93 * s.width - side) * max(out, 0.0) + min(out, 0.0) * side, s.belt + up * cabin))
    half.append((0.40 * side, s.roof))
    left = [(s.x, -y, z) for y, z in half]
    return [*left, *((s.x, y, z) for y, z in half[::-1])]


def loft(sketch: Sketch, stations: Sequence[Station]) -> None:
    """Skin the stations and close both ends."""
    rings = [ring_of(station) for station in stations]
    for first, second in pairwise(rings):
        for k in range(len(first) - 1):
            part = Part.TRIM if k in (0, len(first) - 2) else Part.PAINT
            sketch.quad(first[k], first[k + 1], second[k + 1], second[k], part)
    for ring in (rings[0], rings[-1]):
        for k in range(len(ring) // 2 - 1):
            sketch.quad(ring[k], ring[k + 1], ring[-2 - k], ring[-1 - k], Part.PAINT)


def coupe() -> Mesh:
    """A low, round two-door car in the manner of the Audi TT."""
    sketch = Sketch()
    loft(sketch, refined(COUPE))
    for x in (-0.60, 0.60):
        for side in (-1.0, 1.0):
            sketch.wheel(x, side * ARCH_IN, 0.158, 0.238, 0.24)
    for side in (-1, 1):
        low, high = sorted((side * 0.90, side * 1.0))
        sketch.box((0.27, low, 0.66), (0.34, high, 0.735), Part.PAINT)
    return sketch.mesh()


def van() -> Mesh:
    sketch = Sketch()
    loft(sketch, refined(VAN, 0.12))
    for x in (-0.62, 0.66):
        for side in (-1.0, 1.0):
            sketch.wheel(x, side * ARCH_IN, 0.112, 0.130, 0.22)
    return sketch.mesh()


def truck() -> Mesh:
    sketch = Sketch()
    loft(sketch, refined(TRUCK_CAB, 0.12))
    sketch.box((-1.0, -0.98, 0.26), (0.46, 0.98, 1.0), Part.PAINT)
    sketch.box((-0.98, -0.75, 0.16), (0.55, 0.75, 0.26), Part.TRIM)
    for x in (-0.72, -0.42, 0.72):
        for side in (-1.0, 1.0):
            sketch.wheel(x, side * ARCH_IN, 0.12, 0.135, 0.25)
    for side in (-1, 1):
        low, high = sorted((side * 0.6, side * 0.86))
        sketch.box((-1.0, low, 0.20), (-0.985, high, 0.25), Part.TAIL_LIGHT)
    return sketch.mesh()


def box() -> Mesh:
    sketch = Sketch()
    sketch.box((-1, -1, 0), (1, 1, 1), Part.PAINT)
    return sketch.mesh()


MAKERS = {Shape.COUPE: coupe, Shape.VAN: van, Shape.TRUCK: truck, Shape.BOX: box}


class Fleet(NamedTuple):
    """All meshes one behind the other; `first` says where each shape's nodes begin and end."""

    corners: np.ndarray
    normals: np.ndarray
    part: np.ndarray
    bounds: np.ndarray
    links: np.ndarray
    first: np.ndarray
    """[shapes, 2] int64 nodes"""


@lru_cache
def fleet() -> Fleet:
    """Return the meshes of every `Shape`, in the enum's order."""
    meshes = [MAKERS[shape]() for shape in Shape]
    nodes = np.cumsum([0, *(len(mesh.bounds) for mesh in meshes)])
    triangles = np.cumsum([0, *(len(mesh.corners) for mesh in meshes)])
    links = [
        mesh.links + np.array([node, triangle, 0])
        for mesh, node, triangle in zip(meshes, nodes, triangles, strict=False)
    ]
    return Fleet(
        np.concatenate([mesh.corners for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.part for mesh in meshes]),
        np.concatenate([mesh.bounds for mesh in meshes]),
        np.concatenate(links),
        np.stack([nodes[:-1], nodes[1:]], 1),
    )
