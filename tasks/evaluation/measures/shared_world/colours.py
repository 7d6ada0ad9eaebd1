"""Do two pictures show the same colours at pixels that show the same points?"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit

FEWEST_PIXELS = 64
LEAST_SPREAD = 1e-6
"""Variance of colours in [0, 1] below which a picture has no structure to compare."""


@njit(cache=True, nogil=True)
def add_pairs(
    sums: np.ndarray, use: np.ndarray, view: np.ndarray, place: np.ndarray, picture: np.ndarray, other: np.ndarray
) -> None:
    """Add to sums [10]: the count, x by channel, y by channel, xx, yy and xy over all channels.

    x is `picture` [V, h, w, 3], y is `other` [W, h, w, 3] at view and place (shares of width and height), bilinear.
    """
    views, height, width = use.shape
    rows, columns = other.shape[1:3]
    for v in range(views):
        for r in range(height):
            for c in range(width):
                if not use[v, r, c]:
                    continue
                t = view[v, r, c]
                px = place[v, r, c, 0] * columns - 0.5
                py = place[v, r, c, 1] * rows - 0.5
                i = min(max(int(np.floor(py)), 0), rows - 2)
                j = min(max(int(np.floor(px)), 0), columns - 2)
                fy, fx = min(max(py - i, 0.0), 1.0), min(max(px - j, 0.0), 1.0)
                sums[0] += 1
                for k in range(3):
                    x = picture[v, r, c, k]
                    y = (1 - fy) * ((1 - fx) * other[t, i, j, k] + fx * other[t, i, j + 1, k]) + fy * (
                        (1 - fx) * other[t, i + 1, j, k] + fx * other[t, i + 1, j + 1, k]
                    )
                    sums[1 + k] += x
                    sums[4 + k] += y
                    sums[7] += x * x
                    sums[8] += y * y
                    sums[9] += x * y


def correlation_of(pictures: np.ndarray, others: np.ndarray) -> float | None:
    """Return the correlation of colours [..., 3] about each channel's mean, None as in `Colours.correlation`."""
    x, y = pictures.reshape(-1, 3).astype(np.float64), others.reshape(-1, 3).astype(np.float64)
    squares = [np.square(x).sum(), np.square(y).sum(), (x * y).sum()]
    return Colours(np.array([len(x), *x.sum(0), *y.sum(0), *squares])).correlation()


@dataclass
class Colours:
    """Sums over pairs of colours x, y: what their correlation needs."""

    sums: np.ndarray = field(default_factory=lambda: np.zeros(10))

    def add(self, use: np.ndarray, view: np.ndarray, place: np.ndarray, picture: np.ndarray, other: np.ndarray) -> None:
        """Add the pixels `use` [V, h, w] of a picture [V, h, w, 3] beside another one at view and place."""
        add_pairs(self.sums, use, view, place, picture, other)

    @property
    def pixels(self) -> int:
        return int(self.sums[0])

    def correlation(self) -> float | None:
        """Return the correlation of the colours about each channel's mean, -1..1.

        None for fewer than FEWEST_PIXELS and for a picture without structure, which agrees with everything.
        """
        if self.pixels < FEWEST_PIXELS:
            return None
        count, x, y = self.sums[0], self.sums[1:4], self.sums[4:7]
        xx, yy = self.sums[7] / count - (x / count) @ (x / count), self.sums[8] / count - (y / count) @ (y / count)
        if min(xx, yy) < LEAST_SPREAD:
            return None
        return float((self.sums[9] / count - (x / count) @ (y / count)) / np.sqrt(xx * yy))
