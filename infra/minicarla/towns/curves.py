"""Plane curves of roads: chains of clothoids (a line and an arc are clothoids too), in OpenDRIVE axes (y left)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pyclothoids import Clothoid

from .errors import TownError

XY = tuple[float, float]


@dataclass(frozen=True)
class Piece:
    """A clothoid: starts at (x, y) with `heading` [rad] and `curvature` [1/m], which grows by `sharpness` [1/m^2]."""

    x: float
    y: float
    heading: float
    curvature: float
    sharpness: float
    length: float

    def at(self, s: float) -> tuple[float, float, float]:
        """(x, y, heading) after s metres."""
        x, y, heading = clothoid_points(self.x, self.y, self.heading, self.curvature, self.sharpness, np.array([s]))
        return float(x[0]), float(y[0]), float(heading[0])

    def cut(self, start: float, end: float) -> Piece:
        """The part between the arc lengths start and end."""
        x, y, heading = self.at(start)
        return Piece(x, y, heading, self.curvature + self.sharpness * start, self.sharpness, end - start)


def clothoid_points(
    x: float, y: float, heading: float, curvature: float, sharpness: float, s: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y, heading [N] of a clothoid at the arc lengths s [N] (closed form for lines and arcs, else 8-point Gauss)."""
    h = heading + curvature * s + 0.5 * sharpness * s * s
    if abs(sharpness) > 1e-12:
        spots, weights = np.polynomial.legendre.leggauss(8)
        # Pieces of at most a third of the whole keep the rule exact to 1e-9 m for the bends that roads have.
        parts = 3
        u = (np.arange(parts)[:, None] + 0.5 * (spots + 1)).reshape(-1) / parts
        t = s[:, None] * u
        angle = heading + curvature * t + 0.5 * sharpness * t * t
        w = np.tile(weights, parts) / (2 * parts)
        return x + s * (np.cos(angle) @ w), y + s * (np.sin(angle) @ w), h
    if abs(curvature) > 1e-9:
        px = x + (np.sin(h) - math.sin(heading)) / curvature
        py = y - (np.cos(h) - math.cos(heading)) / curvature
        return px, py, h
    return x + s * math.cos(heading), y + s * math.sin(heading), h


@dataclass(frozen=True)
class Path:
    """Pieces that join with equal heading."""

    pieces: tuple[Piece, ...]

    @property
    def length(self) -> float:
        return sum(p.length for p in self.pieces)

    def at(self, s: float) -> tuple[float, float, float]:
        """(x, y, heading) after s metres."""
        for piece in self.pieces[:-1]:
            if s <= piece.length:
                return piece.at(s)
            s -= piece.length
        return self.pieces[-1].at(s)

    def trim(self, start: float, end: float) -> Path:
        """Without the first `start` and the last `end` metres. TownError when less than 15 m would stay."""
        stop = self.length - end
        if stop - start < 15:
            x, y, _ = self.at(0.0)
            raise TownError(
                f"the road from ({x:.0f}, {y:.0f}) is {self.length:.1f} m long and its junctions take "
                f"{start + end:.1f} m of it: place the junctions farther apart"
            )
        kept: list[Piece] = []
        s = 0.0
        for piece in self.pieces:
            a, b = max(start - s, 0.0), min(stop - s, piece.length)
            if b - a > 0.01:
                kept.append(piece.cut(a, b))
            s += piece.length
        return Path(tuple(kept))


def hermite(start: XY, start_heading: float, end: XY, end_heading: float) -> Path:
    """One clothoid between two places with given headings [rad]."""
    c = Clothoid.G1Hermite(start[0], start[1], start_heading, end[0], end[1], end_heading)
    curvature = 0.0 if abs(c.KappaStart) < 1e-7 and abs(c.KappaEnd) < 1e-7 else c.KappaStart
    sharpness = 0.0 if abs(c.KappaEnd - c.KappaStart) < 1e-7 else c.dk
    return Path((Piece(start[0], start[1], start_heading, curvature, sharpness, c.length),))


def smooth(points: Sequence[XY], start_heading: float | None = None, end_heading: float | None = None) -> Path:
    """Clothoids through all points; inner headings follow the neighbours, the outer ones [rad] can be set."""
    p = np.asarray(points, float)
    tangents = np.empty_like(p)
    tangents[1:-1] = p[2:] - p[:-2]
    tangents[0], tangents[-1] = p[1] - p[0], p[-1] - p[-2]
    headings = [math.atan2(t[1], t[0]) for t in tangents]
    if start_heading is not None:
        headings[0] = start_heading
    if end_heading is not None:
        headings[-1] = end_heading
    pieces: list[Piece] = []
    for a, b, ha, hb in zip(points[:-1], points[1:], headings[:-1], headings[1:], strict=True):
        pieces += hermite(a, ha, b, hb).pieces
    return Path(tuple(pieces))


def rounded(points: Sequence[XY], radius: float) -> Path:
    """Straight legs between the points; corners rounded by arcs of `radius` metres (less where it can't fit)."""
    p = [np.asarray(q, float) for q in points]
    pieces: list[Piece] = []
    here = p[0]
    for k in range(1, len(p)):
        leg = p[k] - here
        heading = math.atan2(leg[1], leg[0])
        if k == len(p) - 1:
            pieces.append(Piece(here[0], here[1], heading, 0.0, 0.0, float(np.hypot(*leg))))
            break
        after = p[k + 1] - p[k]
        turn = math.remainder(math.atan2(after[1], after[0]) - heading, 2 * math.pi)
        share = 1.0 if k + 1 == len(p) - 1 else 0.5
        cut = min(radius * math.tan(abs(turn) / 2), float(np.hypot(*leg)), share * float(np.hypot(*after)))
        corner = p[k] - cut * leg / np.hypot(*leg)
        straight = float(np.hypot(*(corner - here)))
        if straight > 0.01:
            pieces.append(Piece(here[0], here[1], heading, 0.0, 0.0, straight))
        if abs(turn) > 1e-6:
            r = cut / math.tan(abs(turn) / 2)
            pieces.append(Piece(corner[0], corner[1], heading, math.copysign(1 / r, turn), 0.0, r * abs(turn)))
        here = p[k] + cut * after / np.hypot(*after)
    return Path(tuple(pieces))


def parallel(points: Sequence[XY], right: float) -> list[XY]:
    """The polyline moved `right` metres to its right-hand side, corners mitred."""
    p = np.asarray(points, float)
    d = np.diff(p, axis=0)
    d /= np.hypot(d[:, 0], d[:, 1])[:, None]
    n = np.stack([d[:, 1], -d[:, 0]], 1)
    shift = np.empty_like(p)
    shift[0], shift[-1] = n[0], n[-1]
    if len(p) > 2:
        m = n[1:] + n[:-1]
        shift[1:-1] = m / (0.5 * (m * m).sum(1, keepdims=True))
    return [(float(x), float(y)) for x, y in p + right * shift]
