"""The towns' parametric road layouts. Each generator draws its small irregularities from the `random.Random` it gets.

Every layout offers straight two-way stretches of 90 m, a four-way crossing with long arms, T-junctions and exits, so
that all six trajectory types find sites. Metres, OpenDRIVE axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

from .layout import Layout, Profile

STREET = Profile(sidewalk_m=2.5)
AVENUE = Profile(forward=2, backward=2, sidewalk_m=3.5, centre="double", centre_colour="yellow")
LANE = Profile(shoulder_m=1.0, edge="solid")
ONE_WAY = Profile(forward=2, backward=0, shoulder_m=1.0, centre_colour="yellow")
BOULEVARD = Profile(forward=2, backward=2, median_m=5.0, sidewalk_m=3.5)


def grid(
    rng: Random,
    *,
    xs: Sequence[float],
    ys: Sequence[float],
    street: Profile = STREET,
    main: Profile = STREET,
    main_column: int = -1,
    main_row: int = -1,
    missing: Sequence[tuple[int, int, int, int]] = (),
    skew_m: float = 0.0,
) -> Layout:
    """Rows and columns of streets; the outer ones form a loop with rounded corners. `missing`: blocks grown together.

    A missing street is named by the grid indices (i, j, i, j) of its ends.
    """
    layout = Layout()
    nx, ny = len(xs), len(ys)
    corners = {(0, 0), (nx - 1, 0), (0, ny - 1), (nx - 1, ny - 1)}
    at: dict[tuple[int, int], tuple[float, float]] = {}
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            at[i, j] = x + rng.uniform(-skew_m, skew_m), y + rng.uniform(-skew_m, skew_m)
    nodes = {key: layout.node(*xy) for key, xy in at.items() if key not in corners}
    for i in range(nx):
        for j in range(ny):
            for k, m in ((i + 1, j), (i, j + 1)):
                if (k, m) in nodes and (i, j) in nodes and (i, j, k, m) not in missing:
                    is_main = j == m == main_row or i == k == main_column
                    layout.street(nodes[i, j], nodes[k, m], main if is_main else street)
    for i, j in sorted(corners):
        beside, above = (1 if i == 0 else nx - 2, j), (i, 1 if j == 0 else ny - 2)
        layout.street(nodes[beside], nodes[above], street, via=[at[i, j]], radius=rng.uniform(24, 36))
    return layout


def downtown(
    rng: Random,
    *,
    xs: Sequence[float],
    ys: Sequence[float],
    avenue: Profile = AVENUE,
    street: Profile = STREET,
    stub_m: float = 75.0,
) -> Layout:
    """Crossing avenues (every other line) and streets that run on out of town: every node is a crossing."""
    layout = Layout(corner_m=5.5)
    nodes = {(i, j): layout.node(x, y) for i, x in enumerate(xs) for j, y in enumerate(ys)}

    def line(k: int) -> Profile:
        return avenue if k % 2 else street

    for i in range(len(xs)):
        for j in range(len(ys)):
            if i + 1 < len(xs):
                layout.street(nodes[i, j], nodes[i + 1, j], line(j))
            if j + 1 < len(ys):
                layout.street(nodes[i, j], nodes[i, j + 1], line(i))
    for i, x in enumerate(xs):
        for j, side in ((0, -1), (len(ys) - 1, 1)):
            end = layout.node(x, ys[j] + side * (stub_m + rng.uniform(-8, 8)))
            layout.street(nodes[i, j], end, line(i))
    for j, y in enumerate(ys):
        for i, side in ((0, -1), (len(xs) - 1, 1)):
            end = layout.node(xs[i] + side * (stub_m + rng.uniform(-8, 8)), y)
            layout.street(nodes[i, j], end, line(j))
    return layout


def rural(rng: Random, *, road: Profile = LANE, mirror: float = 1.0, length_m: float = 150.0) -> Layout:
    """Two country roads that cross, with by-roads that swing round between them."""
    layout = Layout(corner_m=6.5)

    def node(x: float, y: float) -> int:
        return layout.node(x + rng.uniform(-5, 5), mirror * (y + rng.uniform(-5, 5)))

    def bend(a: int, b: int, via: Sequence[tuple[float, float]], first: float, last: float) -> None:
        points = [(x, mirror * y) for x, y in via]
        layout.curve(a, b, road, points, (mirror * first, mirror * last))

    centre = layout.node(0, 0)
    east = layout.node(length_m, mirror * 0.12 * length_m)
    slope = math.degrees(math.atan(0.12))
    west, north, south = node(-125, -45), node(25, 135), node(-20, -140)
    layout.street(centre, east, road)
    bend(centre, west, [(-65, -12)], 180 + slope, 200)
    bend(centre, north, [(8, 70)], 95, 75)
    bend(centre, south, [(-14, -70)], 275, 265)
    bend(east, node(225, 12), [(190, 20)], slope, -20)
    bend(east, north, [(145, 95), (90, 145)], 98, 172)
    bend(west, node(-205, -48), [(-165, -55)], 200, 165)
    bend(west, south, [(-115, -105), (-80, -140)], 285, 352)
    bend(north, node(-120, 150), [(-40, 150)], 178, 170)
    bend(south, node(120, -135), [(50, -148)], 350, 30)
    bend(north, node(42, 212), [], 75, 85)
    bend(south, node(-32, -215), [], 265, 255)
    return layout


def suburb(rng: Random, *, collector: Profile = STREET, street: Profile = STREET, reach_m: float = 120.0) -> Layout:
    """A collector street with one crossing, T-junctions, two loops and quiet dead ends."""
    layout = Layout(corner_m=4.5)
    d = reach_m
    west, middle, east = layout.node(-d, 0), layout.node(0, 0), layout.node(d, 0)
    north, south = layout.node(0, d - 5), layout.node(0, -d + 5)
    layout.street(west, middle, collector)
    layout.street(middle, east, collector)
    layout.curve(west, layout.node(-d - 80, -25), collector, (), (180, 180 + rng.uniform(20, 35)))
    layout.curve(east, layout.node(d + 80, 25), collector, (), (0, rng.uniform(20, 35)))
    for end, side in ((north, 1.0), (south, -1.0)):
        layout.street(middle, end, street)
        corner = rng.uniform(20, 45)
        loop, other = (west, -1.0) if side > 0 else (east, 1.0)
        layout.street(end, loop, street, via=[(other * d, side * (d - 5))], radius=corner)
        turn = (-other * (d - 30), side * (d - 5))
        layout.street(end, layout.node(turn[0] + rng.uniform(-4, 4), side * 45), street, via=[turn], radius=corner)
    north_end = layout.node(rng.uniform(-12, 12), d + 70)
    layout.curve(north, north_end, street, (), (90, rng.uniform(75, 105)))
    south_end = layout.node(rng.uniform(-12, 12), -d - 70)
    layout.curve(south, south_end, street, (), (270, rng.uniform(255, 285)))
    return layout


def ring(
    rng: Random, *, radius_m: float = 125.0, spokes: int = 4, street: Profile = STREET, outer: Profile = STREET
) -> Layout:
    """A ring road; spokes meet in the middle and run on outside, further exits leave the ring in between."""
    layout = Layout()
    centre = layout.node(0, 0)
    turn = rng.uniform(0, 20)
    knots: list[tuple[float, bool]] = []
    for k in range(spokes):
        step = 360 / spokes
        knots.append((turn + k * step, True))
        if k % 2 == 0:
            knots.append((turn + (k + 0.5) * step, False))
    nodes = [layout.node(*_polar(radius_m, a)) for a, _ in knots]
    for k, (angle, inward) in enumerate(knots):
        after = knots[(k + 1) % len(knots)][0]
        layout.curve(nodes[k], nodes[(k + 1) % len(knots)], outer, (), (angle + 90, after + 90))
        if inward:
            layout.street(centre, nodes[k], street)
        out = layout.node(*_polar(radius_m + 75 + rng.uniform(-6, 6), angle + rng.uniform(-4, 4)))
        layout.curve(nodes[k], out, street, (), (angle, None))
    return layout


def dual(rng: Random, *, gap_m: float = 8.0, carriageway: Profile = ONE_WAY, street: Profile = STREET) -> Layout:
    """Two one-way carriageways side by side, crossed by streets that are joined behind them on both sides."""
    layout = Layout(corner_m=7.0)
    xs = (-205.0, -100.0 + rng.uniform(-6, 6), 60.0 + rng.uniform(-6, 6), 205.0)
    axis = [layout.node(x, 0) for x in xs]
    for a, b in pairwise(axis):
        layout.carriageway(a, b, carriageway, gap_m / 2)
        layout.carriageway(b, a, carriageway, gap_m / 2)
    for side, depth in ((1, 105.0), (-1, 100.0)):
        back = [layout.node(x, side * depth) for x in xs[1:3]]
        for front, rear in zip(axis[1:3], back, strict=True):
            layout.street(front, rear, street)
        layout.street(back[0], back[1], street)
        layout.street(back[0], layout.node(xs[1] - 75, side * (depth + 12)), street)
        layout.street(back[1], layout.node(xs[2] + 85, side * (depth - 6)), street)
        if side < 0:
            layout.street(back[1], layout.node(xs[2] + 4, -depth - 80), street)
        else:
            layout.street(back[0], layout.node(xs[1], depth + 80), street)
    return layout


def village(rng: Random, *, main: Profile = STREET, lane: Profile = LANE) -> Layout:
    """A winding main street, a crossing at its heart, lanes that branch off and come back."""
    layout = Layout(corner_m=5.5)

    def node(x: float, y: float) -> int:
        return layout.node(x + rng.uniform(-4, 4), y + rng.uniform(-4, 4))

    heart, east = layout.node(0, 0), layout.node(125, 22)
    slope = math.degrees(math.atan2(22, 125))
    west = node(-115, 30)
    layout.street(heart, east, main)
    layout.curve(west, heart, main, [(-60, 2)], (-35, slope))
    layout.curve(west, node(-195, 55), main, (), (145, 185))
    layout.curve(east, node(200, 0), main, (), (slope, -45))
    north, south = node(-30, 115), node(35, -115)
    layout.curve(heart, north, lane, [(-18, 60)], (100, 105))
    layout.curve(heart, south, lane, [(15, -60)], (280, 290))
    layout.curve(west, north, lane, [(-92, 95)], (60, 10))
    layout.curve(east, south, lane, [(110, -65)], (275, 190))
    layout.curve(north, node(60, 150), lane, (), (15, 60))
    layout.curve(south, node(-90, -140), lane, [(-35, -112)], (195, 225))
    layout.curve(north, node(-55, 190), lane, (), (105, 95))
    return layout


def boulevard(rng: Random, *, wide: Profile = BOULEVARD, street: Profile = STREET) -> Layout:
    """A tree-lined boulevard with a median, two crossings, and a quarter of streets on both sides."""
    layout = Layout(corner_m=6.0)
    half = 82.0 + rng.uniform(-4, 4)
    ends, crossings = [layout.node(-200, 0), layout.node(200, 0)], [layout.node(-half, 0), layout.node(half, 0)]
    layout.street(ends[0], crossings[0], wide)
    layout.street(crossings[0], crossings[1], wide)
    layout.street(crossings[1], ends[1], wide)
    for side in (1, -1):
        depth = 100.0 + rng.uniform(-5, 12)
        back = [layout.node(-half, side * depth), layout.node(half, side * depth)]
        for front, rear in zip(crossings, back, strict=True):
            layout.street(front, rear, street)
        bow = side * rng.uniform(12, 24)
        layout.curve(back[0], back[1], street, [(0, side * depth + bow)], (side * 12, -side * 12))
        layout.street(back[0], layout.node(-half, side * (depth + 78)), street)
        layout.street(back[1], layout.node(half + 85, side * (depth + rng.uniform(-10, 10))), street)
        if side > 0:
            layout.street(back[0], layout.node(-half - 80, depth), street)
    return layout


def ladder(rng: Random, *, radius_m: float = 260.0, step_m: float = 125.0, street: Profile = STREET) -> Layout:
    """Two bowed streets one above the other, joined by rungs that run on beyond the upper one (a bay's waterfront)."""
    layout = Layout()
    angles = [angle + rng.uniform(-2, 2) for angle in (58.0, 85.0, 112.0)]
    low = [layout.node(*_bay(radius_m, a)) for a in angles]
    high = [layout.node(*_bay(radius_m + step_m, a)) for a in angles]
    for k, a in enumerate(angles):
        layout.street(low[k], high[k], street)
        layout.street(high[k], layout.node(*_bay(radius_m + step_m + 75 + rng.uniform(-5, 5), a)), street)
        if k + 1 < len(angles):
            layout.curve(low[k], low[k + 1], street, (), (a + 90, angles[k + 1] + 90))
            layout.curve(high[k], high[k + 1], street, (), (a + 90, angles[k + 1] + 90))
    for row, r in ((low, radius_m), (high, radius_m + step_m)):
        sweep = math.degrees(80 / r)
        first, last = angles[0] - sweep, angles[-1] + sweep
        layout.curve(layout.node(*_bay(r, first)), row[0], street, (), (first + 90, angles[0] + 90))
        layout.curve(row[-1], layout.node(*_bay(r, last)), street, (), (angles[-1] + 90, last + 90))
    return layout


def _polar(radius: float, angle_deg: float) -> tuple[float, float]:
    return radius * math.cos(math.radians(angle_deg)), radius * math.sin(math.radians(angle_deg))


def _bay(radius: float, angle_deg: float) -> tuple[float, float]:
    x, y = _polar(radius, angle_deg)
    return x, y - 330.0


YELLOW = replace(STREET, centre_colour="yellow")

LAYOUTS: dict[str, tuple[Callable[..., Layout], dict[str, Any]]] = {
    "Mini01": (grid, {"xs": (-165, -70, 50, 165), "ys": (-150, -55, 65, 150), "missing": [(1, 1, 1, 2)]}),
    "Mini02": (rural, {}),
    "Mini03": (suburb, {}),
    "Mini04": (ring, {"outer": YELLOW, "street": YELLOW}),
    "Mini05": (downtown, {"xs": (-125, 5, 125), "ys": (-118, 0, 122), "street": YELLOW}),
    "Mini06": (dual, {}),
    "Mini07": (village, {}),
    "Mini08": (boulevard, {}),
    "Mini09": (
        grid,
        {"xs": (-170, -55, 65, 170), "ys": (-160, -50, 60, 165), "skew_m": 9.0, "street": YELLOW, "main": YELLOW},
    ),
    "Mini10": (rural, {"mirror": -1.0, "length_m": 165.0, "road": replace(LANE, centre_colour="yellow")}),
    "Mini11": (
        grid,
        {
            "xs": (-195, -65, 65, 195),
            "ys": (-135, 10, 135),
            "street": replace(STREET, lane_m=3.75, sidewalk_m=1.8),
            "main": replace(AVENUE, centre_colour="white", sidewalk_m=1.8),
            "main_row": 1,
        },
    ),
    "Mini12": (ladder, {"street": replace(STREET, sidewalk_m=3.5)}),
}
"""Name -> generator and its parameters."""
