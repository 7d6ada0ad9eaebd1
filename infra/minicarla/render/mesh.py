"""Triangles being gathered into a mesh, and the tree that rays walk."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from infra.minicarla.render.parts import Part

SPOKES = 5


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


class Sketch:
    """Triangles being gathered; x and y run from -1 to 1, z from 0 (road) to 1 (top)."""

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
        """A wheel whose outer face lies at y: a tyre, a rim ring and spokes."""
        inner = y - np.sign(y) * width
        rim_y = y - np.sign(y) * 0.02

        def at(angle: float, share: float, depth: float) -> tuple[float, float, float]:
            return (
                x + share * radius_x * float(np.cos(angle)),
                depth,
                radius_z * (1 + share * float(np.sin(angle))),
            )

        angles = np.linspace(0, 2 * np.pi, 21)
        for a, b in pairwise(angles):
            self.quad(at(a, 1, y), at(b, 1, y), at(b, 1, inner), at(a, 1, inner), Part.TYRE)
            self.quad(at(a, 1, y), at(b, 1, y), at(b, 0.68, y), at(a, 0.68, y), Part.TYRE)
            self.quad(at(a, 0.68, y), at(b, 0.68, y), at(b, 0.58, rim_y), at(a, 0.58, rim_y), Part.RIM)
            self.quad(at(a, 0.6, inner), at(b, 0.6, inner), at(b, 0, inner), at(a, 0, inner), Part.TYRE)
        for spoke in range(SPOKES):
            a = 2 * np.pi * (spoke + 0.25) / SPOKES
            self.quad(at(a - 0.9, 0.12, rim_y), at(a - 0.16, 0.62, rim_y), at(a + 0.16, 0.62, rim_y),
                      at(a + 0.9, 0.12, rim_y), Part.RIM)  # fmt: skip

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


def smoothed(corners: np.ndarray, faces: np.ndarray, area: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return [T, 3, 3] corner normals: mean of the faces around a point that bend less than 50 degrees."""
    around: dict[tuple, list[int]] = {}
    keys = [[tuple(point) for point in points] for points in np.round(corners, 5).tolist()]
    for triangle, points in enumerate(keys):
        for point in points:
            around.setdefault(point, []).append(triangle)
    normals = np.empty_like(corners)
    for triangle, points in enumerate(keys):
        for k, point in enumerate(points):
            near = np.array(around[point])
            near = near[(faces[near] @ faces[triangle] > 0.64) & (parts[near] == parts[triangle])]
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
