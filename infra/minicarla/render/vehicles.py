"""Car bodies as triangle meshes, lofted from cross-sections, in a box of half size 1; and the tree that rays walk."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from infra.minicarla.scenery import Shape


class Part(IntEnum):
    """What a triangle is made of."""

    PAINT = 0
    GLASS = 1
    TYRE = 2
    RIM = 3
    HEADLIGHT = 4
    TAIL_LIGHT = 5
    TRIM = 6


PART_RGB = np.array([
    (1.0, 1.0, 1.0), (0.07, 0.09, 0.11), (0.06, 0.06, 0.06), (0.42, 0.43, 0.45), (0.95, 0.95, 0.88), (0.55, 0.03, 0.03),
    (0.10, 0.10, 0.11),
])  # fmt: skip
"""sRGB 0..1; PAINT takes the actor's colour."""
PART_GLOSS = np.array([0.55, 0.9, 0.0, 0.35, 0.6, 0.4, 0.2])


class Mesh(NamedTuple):
    """Triangles in the order of their bounding-volume tree, which is stored depth first with skip links."""

    corners: np.ndarray
    """[T, 9]"""
    normals: np.ndarray
    """[T, 9] at the corners"""
    part: np.ndarray
    """[T] int64"""
    bounds: np.ndarray
    """[M, 6] low and high corner of each node"""
    links: np.ndarray
    """[M, 3] next node when this one is missed, first triangle, number of triangles (0: an inner node)"""


class Station(NamedTuple):
    """A cross-section of a body: heights from the road up, all as parts of the whole car's (0..1)."""

    x: float
    """-1 rear .. 1 front"""
    floor: float
    belt: float
    roof: float
    """Equal to belt outside the cabin."""
    width: float
    """Half width at the belt."""
    roof_width: float


COUPE = (
    Station(-1.00, 0.26, 0.50, 0.50, 0.74, 0.60),
    Station(-0.97, 0.18, 0.60, 0.60, 0.86, 0.70),
    Station(-0.84, 0.14, 0.67, 0.68, 0.95, 0.74),
    Station(-0.66, 0.13, 0.68, 0.80, 0.99, 0.70),
    Station(-0.42, 0.13, 0.67, 0.94, 1.00, 0.66),
    Station(-0.14, 0.13, 0.66, 1.00, 1.00, 0.65),
    Station(0.12, 0.13, 0.65, 0.97, 0.99, 0.65),
    Station(0.30, 0.13, 0.64, 0.83, 0.99, 0.68),
    Station(0.48, 0.13, 0.63, 0.655, 0.99, 0.74),
    Station(0.70, 0.13, 0.60, 0.61, 0.98, 0.76),
    Station(0.88, 0.14, 0.53, 0.54, 0.92, 0.72),
    Station(0.97, 0.16, 0.44, 0.45, 0.80, 0.62),
    Station(1.00, 0.24, 0.36, 0.36, 0.66, 0.50),
)
VAN = (
    Station(-1.00, 0.16, 0.55, 0.93, 0.94, 0.86),
    Station(-0.96, 0.12, 0.55, 0.98, 0.98, 0.90),
    Station(-0.40, 0.12, 0.55, 1.00, 1.00, 0.91),
    Station(0.30, 0.12, 0.54, 1.00, 1.00, 0.91),
    Station(0.52, 0.12, 0.53, 0.95, 1.00, 0.89),
    Station(0.74, 0.12, 0.52, 0.60, 0.99, 0.88),
    Station(0.90, 0.12, 0.47, 0.49, 0.95, 0.86),
    Station(1.00, 0.16, 0.36, 0.36, 0.84, 0.76),
)
TRUCK_CAB = (
    Station(0.52, 0.14, 0.48, 0.84, 0.98, 0.94),
    Station(0.86, 0.14, 0.48, 0.84, 0.99, 0.94),
    Station(0.98, 0.14, 0.46, 0.50, 0.98, 0.94),
    Station(1.00, 0.18, 0.40, 0.40, 0.92, 0.88),
)


class Sketch:
    """Triangles being gathered; z runs from 0 (road) to 1 (top) here."""

    def __init__(self) -> None:
        self.corners: list[np.ndarray] = []
        self.parts: list[Part] = []

    def quad(self, a: Sequence, b: Sequence, c: Sequence, d: Sequence, part: Part) -> None:
        for corners in ((a, b, c), (a, c, d)):
            self.corners.append(np.array(corners, float))
            self.parts.append(part)

    def box(self, low: Sequence[float], high: Sequence[float], part: Part) -> None:
        (x0, y0, z0), (x1, y1, z1) = low, high
        self.quad((x0, y0, z0), (x0, y1, z0), (x0, y1, z1), (x0, y0, z1), part)
        self.quad((x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1), part)
        self.quad((x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1), part)
        self.quad((x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1), part)
        self.quad((x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1), part)
        self.quad((x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0), part)

    def wheel(self, x: float, y: float, radius_x: float, radius_z: float, width: float) -> None:
        """A wheel at the side y (its outer face), as a 14-sided drum with a rim."""
        angles = np.linspace(0, 2 * np.pi, 15)
        ring = [(x + radius_x * np.cos(a), radius_z + radius_z * np.sin(a)) for a in angles]
        rim = [(x + 0.62 * radius_x * np.cos(a), radius_z + 0.62 * radius_z * np.sin(a)) for a in angles]
        inner = y - np.sign(y) * width
        for (x0, z0), (x1, z1), (u0, w0), (u1, w1) in zip(ring, ring[1:], rim, rim[1:], strict=False):
            self.quad((x0, y, z0), (x1, y, z1), (x1, inner, z1), (x0, inner, z0), Part.TYRE)
            self.quad((x0, y, z0), (x1, y, z1), (u1, y, w1), (u0, y, w0), Part.TYRE)
            self.quad((u0, y, w0), (u1, y, w1), (x, y, radius_z), (x, y, radius_z), Part.RIM)

    def loft(self, stations: Sequence[Station], glass: tuple[float, float], slopes: bool = True) -> None:
        """Skin the stations; side windows lie between belt and roof for x in `glass`, and on steep roof slopes."""
        rings = [ring_of(station) for station in stations]
        for (near, first), (far, second) in zip(
            zip(stations, rings, strict=True), zip(stations[1:], rings[1:], strict=True), strict=False
        ):
            middle = (near.x + far.x) / 2
            cabin = glass[0] < middle < glass[1] and max(near.roof - near.belt, far.roof - far.belt) > 0.05
            slope = abs(far.roof - near.roof) / (far.x - near.x)
            for k in range(len(first) - 1):
                part = Part.PAINT
                if k in (0, len(first) - 2):
                    part = Part.TRIM
                elif (cabin and k in (3, len(first) - 5)) or (slopes and cabin and slope > 0.45 and k in range(4, len(first) - 5)):
                    part = Part.GLASS
                self.quad(first[k], first[k + 1], second[k + 1], second[k], part)
        for ring in (rings[0], rings[-1]):
            centre = np.mean(ring, axis=0)
            for a, b in zip(ring, ring[1:], strict=False):
                self.corners.append(np.array([a, b, centre]))
                self.parts.append(Part.PAINT)

    def mesh(self) -> Mesh:
        """Return the mesh in its box of half size 1, corner normals smoothed over shallow edges of like parts."""
        corners, parts = np.array(self.corners), np.array(self.parts, np.int64)
        corners[..., 2] = 2 * corners[..., 2] - 1
        faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = np.linalg.norm(faces, axis=1)
        keep = area > 1e-9
        corners, parts, faces = corners[keep], parts[keep], faces[keep] / area[keep, None]
        inward = (faces * (corners.mean(1) - (0, 0, -0.1))).sum(1) < 0
        faces[inward] *= -1
        return ordered(corners, smoothed(corners, faces, area[keep], parts), parts)


def ring_of(s: Station) -> list[tuple[float, float, float]]:
    """Return a section's outline from the floor's left side over the roof to its right side (y from -1 to 1)."""
    middle = (s.floor + s.belt) / 2
    half = [
        (0.80 * s.width, s.floor), (0.97 * s.width, s.floor + 0.06), (s.width, middle), (0.96 * s.width, s.belt),
        (s.roof_width if s.roof > s.belt + 0.02 else 0.90 * s.width, max(s.roof - 0.02, s.belt)),
        (0.5 * s.roof_width, s.roof + 0.0),
    ]  # fmt: skip
    left = [(s.x, -y, z) for y, z in half]
    return [*left, *((s.x, y, z) for y, z in half[::-1])]


def smoothed(corners: np.ndarray, faces: np.ndarray, area: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return [T, 3, 3] corner normals: mean of the faces around a point that bend less than 50 degrees."""
    around: dict[tuple, list[int]] = {}
    for triangle, points in enumerate(np.round(corners, 5)):
        for point in points:
            around.setdefault(tuple(point), []).append(triangle)
    normals = np.empty_like(corners)
    for triangle, points in enumerate(np.round(corners, 5)):
        for k, point in enumerate(points):
            near = [
                t for t in around[tuple(point)] if faces[t] @ faces[triangle] > 0.64 and parts[t] == parts[triangle]
            ]
            total = (faces[near] * area[near, None]).sum(0)
            normals[triangle, k] = total / np.linalg.norm(total)
    return normals


def ordered(corners: np.ndarray, normals: np.ndarray, parts: np.ndarray) -> Mesh:
    """Build the bounding-volume tree by halving along the longest side."""
    low, high, middle = corners.min(1), corners.max(1), corners.mean(1)
    bounds: list[np.ndarray] = []
    links: list[list[int]] = []
    order: list[int] = []

    def grow(ids: np.ndarray) -> None:
        node = len(bounds)
        bounds.append(np.concatenate([low[ids].min(0) - 1e-5, high[ids].max(0) + 1e-5]))
        links.append([0, 0, 0])
        if len(ids) <= 4:
            links[node][1:] = len(order), len(ids)
            order.extend(ids)
        else:
            axis = int(np.argmax(np.ptp(middle[ids], axis=0)))
            ids = ids[np.argsort(middle[ids, axis], kind="stable")]
            grow(ids[: len(ids) // 2])
            grow(ids[len(ids) // 2 :])
        links[node][0] = len(bounds)

    grow(np.arange(len(corners)))
    return Mesh(
        corners[order].reshape(-1, 9), normals[order].reshape(-1, 9), parts[order], np.array(bounds), np.array(links)
    )


def coupe() -> Mesh:
    """A low, round two-door car in the manner of the Audi TT."""
    sketch = Sketch()
    sketch.loft(COUPE, (-0.85, 0.50))
    for x in (-0.60, 0.62):
        for side in (-1.0, 1.0):
            sketch.wheel(x, side * 0.995, 0.165, 0.245, 0.24)
    for side in (-1, 1):
        front, rear = sorted((side * 0.42, side * 0.72)), sorted((side * 0.40, side * 0.78))
        sketch.box((0.90, front[0], 0.42), (0.955, front[1], 0.50), Part.HEADLIGHT)
        sketch.box((-1.0, rear[0], 0.515), (-0.93, rear[1], 0.59), Part.TAIL_LIGHT)
    sketch.box((0.93, -0.34, 0.24), (0.995, 0.34, 0.36), Part.TRIM)
    sketch.box((-1.0, -0.5, 0.20), (-0.985, 0.5, 0.30), Part.TRIM)
    return sketch.mesh()


def van() -> Mesh:
    sketch = Sketch()
    sketch.loft(VAN, (0.25, 0.80))
    for x in (-0.62, 0.66):
        for side in (-1.0, 1.0):
            sketch.wheel(x, side * 0.995, 0.115, 0.135, 0.22)
    for side in (-1, 1):
        pair = sorted((side * 0.55, side * 0.85))
        sketch.box((0.93, pair[0], 0.33), (0.985, pair[1], 0.42), Part.HEADLIGHT)
        pair = sorted((side * 0.84, side * 0.94))
        sketch.box((-1.0, pair[0], 0.30), (-0.985, pair[1], 0.52), Part.TAIL_LIGHT)
    sketch.box((-1.0, -0.7, 0.62), (-0.992, 0.7, 0.88), Part.GLASS)
    return sketch.mesh()


def truck() -> Mesh:
    sketch = Sketch()
    sketch.loft(TRUCK_CAB, (0.50, 0.99))
    sketch.box((-1.0, -0.98, 0.26), (0.46, 0.98, 1.0), Part.PAINT)
    sketch.box((-0.98, -0.75, 0.16), (0.55, 0.75, 0.26), Part.TRIM)
    for x in (-0.72, -0.42, 0.72):
        for side in (-1.0, 1.0):
            sketch.wheel(x, side * 0.99, 0.12, 0.135, 0.25)
    for side in (-1, 1):
        pair = sorted((side * 0.6, side * 0.86))
        sketch.box((0.97, pair[0], 0.22), (1.0, pair[1], 0.30), Part.HEADLIGHT)
        sketch.box((-1.0, pair[0], 0.20), (-0.985, pair[1], 0.25), Part.TAIL_LIGHT)
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


def fleet() -> Fleet:
    """Return the meshes of every `Shape`, in the enum's order."""
    meshes = [MAKERS[shape]() for shape in Shape]
    nodes = np.cumsum([0, *(len(mesh.bounds) for mesh in meshes)])
    triangles = np.cumsum([0, *(len(mesh.corners) for mesh in meshes)])
    links = [mesh.links + (node, triangle, 0) for mesh, node, triangle in zip(meshes, nodes, triangles, strict=False)]
    return Fleet(
        np.concatenate([mesh.corners for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.part for mesh in meshes]),
        np.concatenate([mesh.bounds for mesh in meshes]),
        np.concatenate(links),
        np.stack([nodes[:-1], nodes[1:]], 1),
    )
