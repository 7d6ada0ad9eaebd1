"""Places where two cars can meet in one of the six ways of the paper's Figure 1."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tasks.planning.errors import TooFewSites
from tasks.planning.roads import Manoeuvre, RoadNetwork, Way, chain, inside, lane_key, turn, way_through

REACH_M = 60.0
"""How far a way goes before and after the place where the cars meet, where the road allows."""
LEAST_M = 22.0
"""What a way must have on either side of it."""


@dataclass(frozen=True)
class Site:
    """Two ways and when their cars pass the meeting places: car 1 `gap_s` after car 0 (before it when negative)."""

    name: str
    ways: tuple[Way, Way]
    gap_s: float
    headway_m: float = 0.0
    """Where both drive one behind the other: the distance between their centres."""


def fits(way: Way) -> bool:
    """Tell whether a car can come from far enough and go on far enough."""
    return way.anchor_m >= LEAST_M and way.length_m - way.anchor_m >= LEAST_M


def is_straight(way: Way, span_m: float = 30.0) -> bool:
    near = np.abs(way.stations - way.anchor_m) < span_m
    return float(np.ptp(np.unwrap(np.radians(way.points[near, 3])))) < np.radians(12)


def straight_meetings(roads: RoadNetwork) -> Iterator[Site]:
    """Opposite directions on one straight road; they pass each other."""
    for waypoint in roads.waypoints[::3]:
        other = roads.oncoming(waypoint)
        if other is None or lane_key(waypoint) > lane_key(other):
            continue
        ways = way_through([waypoint], REACH_M, REACH_M, 0), way_through([other], REACH_M, REACH_M, 0)
        if all(map(fits, ways)) and all(map(is_straight, ways)):
            yield Site(f"{name_of(waypoint)}|{name_of(other)}", ways, 0.0)


def followings(roads: RoadNetwork) -> Iterator[Site]:
    """One behind the other on the same lane."""
    for waypoint in roads.waypoints[::3]:
        way = way_through([waypoint], REACH_M, REACH_M, 0)
        if fits(way) and way.length_m >= 90:
            yield Site(name_of(waypoint), (way, way), 0.0, headway_m=11.0)


def crossings(roads: RoadNetwork) -> Iterator[Site]:
    """Straight through one junction on roads that cross; car 0 first."""
    for first, second in pairs(roads, lambda a, b: a.is_straight and b.is_straight):
        angle = abs(turn(first.entry.transform.rotation.yaw, second.entry.transform.rotation.yaw))
        if 50 < angle < 130:
            yield from conflict(first, second, gap_s=2.0)


def turning_meetings(roads: RoadNetwork) -> Iterator[Site]:
    """One goes straight on, then the oncoming one turns, across its lane or away."""
    for first, second in pairs(roads, lambda a, b: a.is_straight and not b.is_straight):
        angle = abs(turn(first.entry.transform.rotation.yaw, second.entry.transform.rotation.yaw))
        if angle > 140:
            yield from conflict(first, second, gap_s=2.0)


def mergings(roads: RoadNetwork) -> Iterator[Site]:
    """Two ways into one lane: car 1 falls in behind car 0."""
    for first, second in pairs(roads, lambda a, b: a.turn_deg != b.turn_deg):
        if next_lane(first) == next_lane(second) and lane_before(first) != lane_before(second):
            ways = ways_of(first, at_end=True), ways_of(second, at_end=True)
            if all(map(fits, ways)):
                yield Site(f"{name_of(first.entry)}|{name_of(second.entry)}", ways, 2.0)


def divergings(roads: RoadNetwork) -> Iterator[Site]:
    """One lane, two ways out: car 1 behind car 0 until they part."""
    for first, second in pairs(roads, lambda a, b: abs(a.turn_deg - b.turn_deg) > 30):
        if lane_before(first) == lane_before(second) and next_lane(first) != next_lane(second):
            ways = ways_of(first, at_end=False), ways_of(second, at_end=False)
            if all(map(fits, ways)):
                yield Site(f"{name_of(first.entry)}|{name_of(second.entry)}", ways, 2.0)


FINDERS: dict[str, Callable[[RoadNetwork], Iterator[Site]]] = {
    "straight_meeting": straight_meetings,
    "following": followings,
    "crossing": crossings,
    "turning_meeting": turning_meetings,
    "merging": mergings,
    "diverging": divergings,
}


def pairs(roads: RoadNetwork, wanted: Callable[[Manoeuvre, Manoeuvre], bool]) -> Iterator[tuple[Manoeuvre, Manoeuvre]]:
    """Yield ordered pairs of ways through one junction."""
    for ways in roads.manoeuvres().values():
        for first, second in itertools.permutations(ways, 2):
            if wanted(first, second):
                yield first, second


def ways_of(manoeuvre: Manoeuvre, *, at_end: bool) -> Way:
    """Return the way through a junction, anchored where it leaves or where it enters."""
    middle = inside(manoeuvre)
    return way_through(middle, REACH_M, REACH_M, len(middle) - 1 if at_end else 0)


def conflict(first: Manoeuvre, second: Manoeuvre, gap_s: float) -> Iterator[Site]:
    """Yield the site of two ways that come within 4 m of each other, anchored where they are closest."""
    ways = ways_of(first, at_end=False), ways_of(second, at_end=False)
    distance = np.linalg.norm(ways[0].points[:, None, :2] - ways[1].points[None, :, :2], axis=-1)
    height = np.abs(ways[0].points[:, None, 2] - ways[1].points[None, :, 2])
    distance = np.where(height < 1.0, distance, np.inf)
    i, j = np.unravel_index(int(np.argmin(distance)), distance.shape)
    if distance[i, j] > 4.0:
        return
    anchored = tuple(Way(way.points, float(way.stations[k])) for way, k in zip(ways, (i, j), strict=True))
    if all(map(fits, anchored)):
        yield Site(f"{name_of(first.entry)}|{name_of(second.entry)}", (anchored[0], anchored[1]), gap_s)


def next_lane(manoeuvre: Manoeuvre) -> tuple | None:
    after = chain(manoeuvre.exit, 4.0)
    return lane_key(after[-1]) if after else None


def lane_before(manoeuvre: Manoeuvre) -> tuple | None:
    before = chain(manoeuvre.entry, 4.0, backward=True)
    return lane_key(before[0]) if before else None


def name_of(waypoint) -> str:
    road, section, lane = lane_key(waypoint)
    return f"{road}.{section}.{lane}@{waypoint.s:.1f}"


def find_sites(roads: RoadNetwork, trajectory_type: str) -> list[Site]:
    """Return the town's sites of a type in a fixed order. TooFewSites when it has none."""
    found = list(FINDERS[trajectory_type](roads))
    if not found:
        raise TooFewSites(
            f"town {roads.town} cannot host the trajectory type {trajectory_type!r}: leave out the town or the type."
        )
    return found
