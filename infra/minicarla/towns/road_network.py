"""An OpenDRIVE text as sampled lane strips in CARLA's axes (y right): what scenery and spawn points are placed from.

Reads planView (line, arc, spiral, poly3, paramPoly3), lane offset, widths, borders and road marks. Elevation is left
out: minicarla's world is flat.
"""

from __future__ import annotations

import bisect
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .curves import clothoid_points
from .errors import TownError
from .links import RoadEnd, joined_ends

STEP_M = 1.0
MAX_LANE_M = 3e6
"""Of all lanes together, sampled every metre: some fifty times what CARLA's larger towns have."""


@dataclass(frozen=True)
class Mark:
    """A road mark between two arc lengths of its strip."""

    start_m: float
    end_m: float
    kind: str
    """OpenDRIVE's type: solid, broken, 'solid solid', ..."""
    colour: str
    width_m: float


@dataclass(frozen=True)
class Strip:
    """One lane of one lane section; station k runs from `inner[k]` to `outer[k]` (towards and away from lane 0)."""

    road: int
    junction: int
    """-1 outside junctions."""
    lane: int
    """Lane 0 is a line: inner = outer."""
    kind: str
    """OpenDRIVE's lane type: driving, sidewalk, shoulder, ..."""
    inner: np.ndarray
    """[N, 2] x, y"""
    outer: np.ndarray
    """[N, 2]"""
    s: np.ndarray
    """[N] metres from the start of the strip along the road"""
    heading: np.ndarray
    """[N] radians, CARLA axes, along the road's s"""
    marks: tuple[Mark, ...]
    """At the outer edge."""
    outermost: bool
    """The last lane of its side."""
    ends_in_junction: bool
    """Drivers on this lane run into a junction at its end (driving lanes outside junctions)."""
    dead_end: tuple[bool, bool]
    """The road is over at the strip's start, at its end: no link and no junction leads on."""

    @property
    def forward(self) -> bool:
        """Drivers go with the road's s (right-hand traffic)."""
        return self.lane < 0

    @property
    def centre(self) -> np.ndarray:
        """[N, 2]"""
        return (self.inner + self.outer) / 2


def read_road_network(opendrive: str) -> list[Strip]:
    """All lanes of all roads, in file order. TownError for a text that is not a usable OpenDRIVE."""
    if "<!DOCTYPE" in opendrive:  # entities can grow beyond any bound
        raise TownError("the OpenDRIVE text has a document type declaration; remove it")
    try:
        root = ET.fromstring(opendrive)
        _check_size(root)
        joined = joined_ends(root)
        strips = [strip for road in root.iter("road") for strip in _read_road(road, joined)]
    except (ET.ParseError, TypeError, ValueError) as error:
        raise TownError(f"the OpenDRIVE text can't be read ({error}); validate it with validate_opendrive") from error
    if not any(s.kind == "driving" for s in strips):
        raise TownError("the OpenDRIVE text has no driving lane; give a file with roads")
    for strip in strips:
        if not np.isfinite(strip.outer).all():
            raise TownError(f"OpenDRIVE road {strip.road} has points that are not finite; repair the file")
    return strips


def _number(element: ET.Element, name: str, default: float | None = None) -> float:
    value = element.get(name)
    if value is None:
        if default is None:
            raise TownError(f"an OpenDRIVE <{element.tag}> lacks the attribute {name!r}; repair the file")
        return default
    number = float(value)
    if not math.isfinite(number):
        raise TownError(f"an OpenDRIVE <{element.tag}> has {name}={value!r}, which is not finite; repair the file")
    return number


def _check_size(root: ET.Element) -> None:
    """Raise TownError for more metres of lanes than can be sampled."""
    metres = 0.0
    for road in root.iter("road"):
        sections = road.findall("lanes/laneSection")
        lanes = max((len(section.findall(".//lane")) for section in sections), default=0)
        reach = max(_number(road, "length"), *(_number(section, "s") for section in sections), 0.0)
        metres += reach * (lanes + 1)
    if metres > MAX_LANE_M:
        raise TownError(f"the OpenDRIVE text has {metres:.3g} m of lanes, more than {MAX_LANE_M:g}; cut the map")


class _Cubics:
    """Piecewise cubic: records with a start and a, b, c, d."""

    def __init__(self, elements: Iterable[ET.Element], start: str) -> None:
        rows = sorted([_number(e, start), *(_number(e, k, 0.0) for k in "abcd")] for e in elements)
        self.rows = np.array(rows) if rows else np.zeros((1, 5))

    def __call__(self, s: np.ndarray) -> np.ndarray:
        row = self.rows[np.clip(np.searchsorted(self.rows[:, 0], s + 1e-9, side="right") - 1, 0, None)]
        t = s - row[:, 0]
        return row[:, 1] + t * (row[:, 2] + t * (row[:, 3] + t * row[:, 4]))


def _geometry_points(geometry: ET.Element, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y, heading [N] of one <geometry> at s [N] from its start, OpenDRIVE axes."""
    x, y, h, length = (_number(geometry, k) for k in ("x", "y", "hdg", "length"))
    shape = next(iter(geometry), None)
    if shape is None:
        raise TownError("an OpenDRIVE <geometry> is empty; repair the file")
    if shape.tag == "line":
        return clothoid_points(x, y, h, 0.0, 0.0, s)
    if shape.tag == "arc":
        return clothoid_points(x, y, h, _number(shape, "curvature"), 0.0, s)
    if shape.tag == "spiral":
        start, end = _number(shape, "curvStart"), _number(shape, "curvEnd")
        return clothoid_points(x, y, h, start, (end - start) / length, s)
    if shape.tag == "poly3":
        b, c, d = (_number(shape, k, 0.0) for k in "bcd")
        u, v = s, _number(shape, "a", 0.0) + s * (b + s * (c + s * d))
        du, dv = np.ones_like(s), b + s * (2 * c + 3 * d * s)
    elif shape.tag == "paramPoly3":
        scale = 1.0 if shape.get("pRange") == "arcLength" else 1.0 / length
        p = s * scale
        au, bu, cu, du_, av, bv, cv, dv_ = (_number(shape, k + n, 0.0) for n in "UV" for k in "abcd")
        u, v = au + p * (bu + p * (cu + p * du_)), av + p * (bv + p * (cv + p * dv_))
        du, dv = bu + p * (2 * cu + 3 * du_ * p), bv + p * (2 * cv + 3 * dv_ * p)
    else:
        raise TownError(f"OpenDRIVE geometry <{shape.tag}> is unknown; use line, arc, spiral, poly3 or paramPoly3")
    cos, sin = math.cos(h), math.sin(h)
    return x + cos * u - sin * v, y + sin * u + cos * v, h + np.arctan2(dv, du)


class _Line:
    """The reference line of a road."""

    def __init__(self, road: ET.Element) -> None:
        self.geometries = sorted(road.iterfind("planView/geometry"), key=lambda g: _number(g, "s"))
        if not self.geometries:
            raise TownError(f"OpenDRIVE road {road.get('id')} has no planView geometry; repair the file")
        self.starts = [_number(g, "s") for g in self.geometries]

    def __call__(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        piece = np.array([max(bisect.bisect_right(self.starts, v + 1e-9) - 1, 0) for v in s])
        x, y, h = np.empty_like(s), np.empty_like(s), np.empty_like(s)
        used, first = np.unique(piece, return_index=True)  # s grows: the samples of a piece are consecutive
        for k, begin, end in zip(used, first, [*first[1:], len(s)], strict=True):
            at = slice(begin, end)
            x[at], y[at], h[at] = _geometry_points(self.geometries[k], s[at] - self.starts[k])
        return x, y, h


def _read_road(road: ET.Element, joined: set[RoadEnd]) -> list[Strip]:
    line = _Line(road)
    dead = [(road.get("id", ""), at_end) not in joined for at_end in (False, True)]
    length = _number(road, "length")
    junction = int(_number(road, "junction", -1))
    offset = _Cubics(road.iterfind("lanes/laneOffset"), "s")
    links = {tag: road.find(f"link/{tag}") for tag in ("predecessor", "successor")}
    into = {tag: link is not None and link.get("elementType") == "junction" for tag, link in links.items()}
    sections = sorted(road.iterfind("lanes/laneSection"), key=lambda e: _number(e, "s"))
    ends = [_number(e, "s") for e in sections[1:]] + [length]
    strips: list[Strip] = []
    for k, (section, end) in enumerate(zip(sections, ends, strict=True)):
        start = _number(section, "s")
        if end - start < 0.01:
            continue
        s = np.linspace(start, end, max(2, math.ceil((end - start) / STEP_M) + 1))
        x, y, h = line(s)
        base = offset(s)

        def edge(t: np.ndarray, x: np.ndarray = x, y: np.ndarray = y, h: np.ndarray = h) -> np.ndarray:
            return np.stack([x - t * np.sin(h), -(y + t * np.cos(h))], 1)

        for side in (-1, 0, 1):
            tag = ("center", "left", "right")[side]
            lanes = sorted(section.iterfind(f"{tag}/lane"), key=lambda e: abs(int(_number(e, "id"))))
            t = base
            for lane in lanes:
                t_outer = t if side == 0 else _outer_edge(lane, base, t, side, s - start)
                leads_in = (side < 0 and k == len(sections) - 1 and into["successor"]) or (
                    side > 0 and k == 0 and into["predecessor"]
                )
                strips.append(
                    Strip(
                        road=int(_number(road, "id")),
                        junction=junction,
                        lane=int(_number(lane, "id")),
                        kind=lane.get("type", "none"),
                        inner=edge(t),
                        outer=edge(t_outer),
                        s=s - start,
                        heading=-h,
                        marks=_marks(lane, end - start),
                        outermost=lane is lanes[-1],
                        ends_in_junction=leads_in and junction < 0,
                        dead_end=(start < 0.01 and dead[0], end > length - 0.01 and dead[1]),
                    )
                )
                t = t_outer
    return strips


def _outer_edge(lane: ET.Element, base: np.ndarray, t: np.ndarray, side: int, s: np.ndarray) -> np.ndarray:
    """t of the lane's outer edge: the inner edge plus its width, or its border."""
    widths = lane.findall("width")
    if widths or lane.find("border") is None:
        return t + side * np.maximum(_Cubics(widths, "sOffset")(s), 0.0)
    return base + _Cubics(lane.iterfind("border"), "sOffset")(s)


def _marks(lane: ET.Element, length: float) -> tuple[Mark, ...]:
    found = sorted(lane.iterfind("roadMark"), key=lambda e: _number(e, "sOffset", 0.0))
    starts = [_number(e, "sOffset", 0.0) for e in found] + [length]
    marks = []
    for element, start, end in zip(found, starts[:-1], starts[1:], strict=True):
        kind = element.get("type", "none")
        if kind != "none" and end > start:
            width = _number(element, "width", 0.0) or 0.15
            marks.append(Mark(start, min(end, length), kind, element.get("color", "white"), width))
    return tuple(marks)


def driving(strips: Sequence[Strip]) -> list[Strip]:
    """The driving lanes."""
    return [s for s in strips if s.kind in ("driving", "bidirectional")]
