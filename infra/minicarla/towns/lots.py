"""Frontages: the outer edges of the streets, along which buildings, fences, trees and lamps are set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .painting import FREE, KEEP_CLEAR
from .road_network import Strip


@dataclass(frozen=True)
class Frontage:
    """One side of a street: the polyline along its outer edge and what lies beyond."""

    xy: np.ndarray
    """[N, 2]"""
    along: np.ndarray
    """[N] arc length"""
    outward: np.ndarray
    """[N, 2] unit vectors away from the street"""
    walk_m: float
    """Width of the sidewalk on this side, 0 without one."""

    @property
    def length(self) -> float:
        return float(self.along[-1])

    def at(self, s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(place [2], direction [2], outward [2]) after s metres; the direction is square to outward."""
        place = np.array([np.interp(s, self.along, self.xy[:, k]) for k in (0, 1)])
        out = np.array([np.interp(s, self.along, self.outward[:, k]) for k in (0, 1)])
        out = out / max(float(np.hypot(*out)), 1e-9)
        return place, np.array([-out[1], out[0]]), out


def frontages(strips: Sequence[Strip]) -> list[Frontage]:
    """Outer edges of all streets outside junctions, and of the corners that have a sidewalk or shoulder."""
    found = []
    for strip in strips:
        corner = strip.junction >= 0 and strip.kind in ("sidewalk", "walking", "shoulder")
        if not strip.outermost or strip.lane == 0 or not (strip.junction < 0 or corner):
            continue
        inner, outer = strip.inner, strip.outer
        across = outer - inner
        width = np.hypot(across[:, 0], across[:, 1])
        if width.min() < 0.3:
            continue
        legs = np.hypot(*np.diff(outer, axis=0).T)
        if legs.sum() < 4 or legs.min() < 1e-3:
            continue
        walk = float(width.min()) if strip.kind in ("sidewalk", "walking") else 0.0
        found.append(Frontage(outer, np.concatenate([[0.0], np.cumsum(legs)]), across / width[:, None], walk))
    return found


class Land:
    """What is taken: the keep-clear mask plus everything placed so far."""

    def __init__(self, mask: np.ndarray, low: np.ndarray, texel_m: float) -> None:
        self.mask, self.low, self.texel_m = mask, low, texel_m

    def values(self, points: np.ndarray) -> np.ndarray:
        """Mask values [N] under points [N, 2]; all taken if any lies off the map."""
        x = ((points[:, 0] - self.low[0]) / self.texel_m).astype(np.int64)
        y = ((points[:, 1] - self.low[1]) / self.texel_m).astype(np.int64)
        height, width = self.mask.shape
        if x.min() >= 0 and y.min() >= 0 and x.max() < width and y.max() < height:
            return self.mask[y, x]
        return np.full(len(points), KEEP_CLEAR, np.uint8)

    def rectangle(self, centre: np.ndarray, half: tuple[float, float], yaw: float, step: float) -> np.ndarray:
        """Points [N, 2] that cover a rectangle, edges included, at most `step` metres apart."""
        u, v = (np.linspace(-h, h, max(2, int(np.ceil(2 * h / step)) + 1)) for h in half)
        cos, sin = np.cos(yaw), np.sin(yaw)
        x = centre[0] + cos * u[None, :] - sin * v[:, None]
        y = centre[1] + sin * u[None, :] + cos * v[:, None]
        return np.stack([x.ravel(), y.ravel()], 1)

    def take(
        self, centre: np.ndarray, half: tuple[float, float], yaw: float, most: int = FREE, room: float = 0.0
    ) -> bool:
        """Claims a rectangle if nothing above `most` lies in it or within `room` metres; False if it isn't free."""
        wide = half[0] + room, half[1] + room
        fine = self.texel_m * 0.7
        for step in (2.0, fine):  # most refusals show in the coarse look already
            if (self.values(self.rectangle(centre, wide, yaw, step)) > most).any():
                return False
        own = np.floor((self.rectangle(centre, half, yaw, fine) - self.low) / self.texel_m).astype(np.int64)
        self.mask[own[:, 1], own[:, 0]] = KEEP_CLEAR
        return True
