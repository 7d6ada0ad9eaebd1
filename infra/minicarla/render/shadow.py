"""The sun's shadows of what stands still: a map of heights, baked once for each position of the sun.

Over a point of the map lies shade below `under` (what stands on the ground), and between `low` and `high` (what is in
the air: tree crowns, roofs on posts). A town's map takes 0.05 to 0.1 s.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from infra.minicarla.render.kernels import helper, kernel

SIDE = 2048


class Shade(NamedTuple):
    """The baked map."""

    heights: np.ndarray
    """[SIDE, SIDE, 3] float32: under, low, high; side by side, so that a look-up is one cache line"""
    x0: float
    y0: float
    per_m: float
    per_rise: float
    """1 / how much a shadow's height changes over one cell, 1/m"""


@kernel
def bake(box, crown, sx, sy, sz, x0, y0, per_m, heights, first, last):
    """Bake rows first .. last-1 of the map."""
    side = heights.shape[1]
    flat = max(math.sqrt(sx * sx + sy * sy), 1e-9)
    ux, uy, slope = sx / flat, sy / flat, sz / flat
    for y in range(first, last):
        for x in range(side):
            heights[y, x, 0] = -1e4
            heights[y, x, 1] = 1e4
            heights[y, x, 2] = -1e4
    for i in range(box.shape[0]):
        b = box[i]
        top, bottom = b[2] + b[5], b[2] - b[5]
        hx, hy = max(b[3], 0.55 / per_m), max(b[4], 0.55 / per_m)  # a post is at least a cell thick
        reach, q = top / slope, math.sqrt(hx * hx + hy * hy)
        tip_x, tip_y = b[0] - ux * reach, b[1] - uy * reach
        ya = max(int((min(b[1], tip_y) - q - y0) * per_m), first)
        yb = min(int((max(b[1], tip_y) + q - y0) * per_m) + 2, last)
        xa = max(int((min(b[0], tip_x) - q - x0) * per_m), 0)
        xb = min(int((max(b[0], tip_x) + q - x0) * per_m) + 2, side)
        ex, ey = b[6] * ux + b[7] * uy, b[6] * uy - b[7] * ux
        ex = ex if abs(ex) > 1e-9 else 1e-9
        ey = ey if abs(ey) > 1e-9 else 1e-9
        for y in range(ya, yb):
            ly = (y + 0.5) / per_m + y0 - b[1]
            for x in range(xa, xb):
                lx = (x + 0.5) / per_m + x0 - b[0]
                across = ux * ly - uy * lx
                if across * across > q * q:
                    continue
                px, py = b[6] * lx + b[7] * ly, b[6] * ly - b[7] * lx
                m0, m1 = (-hx - px) / ex, (hx - px) / ex
                n0, n1 = (-hy - py) / ey, (hy - py) / ey
                t0 = max(max(min(m0, m1), min(n0, n1)), 0.0)
                t1 = min(max(m0, m1), max(n0, n1))
                if t0 <= t1:
                    if bottom <= 0.05:
                        heights[y, x, 0] = max(heights[y, x, 0], top - t0 * slope)
                    else:
                        heights[y, x, 1] = min(heights[y, x, 1], bottom - t1 * slope)
                        heights[y, x, 2] = max(heights[y, x, 2], top - t0 * slope)
    for i in range(crown.shape[0]):
        e = crown[i]
        q = e[3]
        reach = (e[2] + e[4]) / slope
        tip_x, tip_y = e[0] - ux * reach, e[1] - uy * reach
        r2, z2 = 1 / (q * q), 1 / (e[4] * e[4])
        a = (sx * sx + sy * sy) * r2 + sz * sz * z2
        b1 = sz * z2
        k2 = b1 * b1 - a * z2
        ya = max(int((min(e[1], tip_y) - q - y0) * per_m), first)
        yb = min(int((max(e[1], tip_y) + q - y0) * per_m) + 2, last)
        xa = max(int((min(e[0], tip_x) - q - x0) * per_m), 0)
        xb = min(int((max(e[0], tip_x) + q - x0) * per_m) + 2, side)
        for y in range(ya, yb):
            ly = (y + 0.5) / per_m + y0 - e[1]
            for x in range(xa, xb):
                lx = (x + 0.5) / per_m + x0 - e[0]
                across = ux * ly - uy * lx
                if across * across > q * q:
                    continue
                b0 = (lx * sx + ly * sy) * r2
                c0 = (lx * lx + ly * ly) * r2 - 1
                k1, k0 = b0 * b1, b0 * b0 - a * c0
                d = k1 * k1 - k2 * k0
                if d > 0:
                    d = math.sqrt(d)
                    heights[y, x, 1] = min(heights[y, x, 1], e[2] + (-k1 + d) / k2)
                    heights[y, x, 2] = max(heights[y, x, 2], e[2] + (-k1 - d) / k2)


@helper
def shaded(s, x, y, z):
    """Return 0 (sunlit) .. 1 (in shade) at a point, smoothed over neighbouring cells."""
    fx, fy = (x - s.x0) * s.per_m - 0.5, (y - s.y0) * s.per_m - 0.5
    ix, iy = math.floor(fx), math.floor(fy)
    if ix < 0 or iy < 0 or ix >= s.heights.shape[1] - 1 or iy >= s.heights.shape[0] - 1:
        return 0.0
    ax, ay = fx - ix, fy - iy
    total = 0.0
    for k in range(4):
        cx, cy = ix + (k & 1), iy + (k >> 1)
        above = (s.heights[cy, cx, 0] - z) * s.per_rise + 0.5  # heights change by a rise from cell to cell
        between = min(s.heights[cy, cx, 2] - z, z - s.heights[cy, cx, 1]) * s.per_rise + 0.5
        total += min(max(above, between, 0.0), 1.0) * (ax if k & 1 else 1 - ax) * (ay if k >> 1 else 1 - ay)
    return total
