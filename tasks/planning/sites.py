"""Sites: places where two cars can meet in one of the six ways of the paper's Figure 1."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from tasks.planning.errors import TooFewSites
from tasks.planning.roads import Manoeuvre, RoadNetwork, Way, lane_key, signed_angle_deg

MIN_APPROACH_M = 22.0
"""The least that a way must have on either side of that place."""
MOST_PLACES = 4000
"""Along the roads of a town that are looked at: more than a plan of 20,000 recordings needs of one type."""


@dataclass(frozen=True)
class Site:
    """Two ways on which cars meet: car 1 passes its meeting place `gap_s` after car 0 passes its own."""

    name: str
    ways: tuple[Way, Way]
    gap_s: float
    headway_m: float = 0.0
    """Distance between the cars' centres where one follows the other, else 0."""
    junction: str = ""
    """Empty between junctions."""
    approaches: str = ""
    """The roads from which the cars come to the junction."""


def is_long_enough(way: Way) -> bool:
    """Tell whether a way is long enough on both sides of its anchor."""
    return way.anchor_m >= MIN_APPROACH_M and way.length_m - way.anchor_m >= MIN_APPROACH_M


def is_straight(way: Way, span_m: float = 30.0) -> bool:
    near = np.abs(way.stations - way.anchor_m) < span_m
    return float(np.ptp(np.unwrap(np.radians(way.points[near, 3])))) < np.radians(12)


def places_along_roads(roads: RoadNetwork) -> list[Any]:
    """Return waypoints outside of junctions: every third, 12 m apart, and fewer in the largest towns."""
    return roads.waypoints[:: max(3, -(-len(roads.waypoints) // MOST_PLACES))]


def straight_meetings(roads: RoadNetwork, max_oncoming_m: float) -> Iterator[Site]:
    """Yield sites where two cars pass each other on a straight road, in lanes at most `max_oncoming_m` apart."""
    for waypoint in places_along_roads(roads):
        other = roads.oncoming(waypoint, max_oncoming_m)
        if other is None or lane_key(waypoint) > lane_key(other):
            continue
        ways = roads.way_at(waypoint), roads.way_at(other)
        if all(map(is_long_enough, ways)) and all(map(is_straight, ways)):
            yield Site(f"{waypoint_name(waypoint)}|{waypoint_name(other)}", ways, 0.0)


def followings(roads: RoadNetwork) -> Iterator[Site]:
    """Yield sites where one car follows the other in a lane."""
    for waypoint in places_along_roads(roads):
        way = roads.way_at(waypoint)
        if is_long_enough(way) and way.length_m >= 90:
            yield Site(waypoint_name(waypoint), (way, way), 0.0, headway_m=11.0)


def crossings(roads: RoadNetwork) -> Iterator[Site]:
    """Yield sites where both cars go straight on at a crossroads, car 0 first."""
    for first, second in manoeuvre_pairs(roads, lambda a, b: a.is_straight and b.is_straight):
        angle = abs(signed_angle_deg(first.entry_deg, second.entry_deg))
        if 50 < angle < 130:
            yield from conflict_site(first, second, gap_s=2.0)


def turning_meetings(roads: RoadNetwork) -> Iterator[Site]:
    """Yield sites where car 0 goes straight on and the oncoming car 1 turns after it."""
    for first, second in manoeuvre_pairs(roads, lambda a, b: a.is_straight and not b.is_straight):
        angle = abs(signed_angle_deg(first.entry_deg, second.entry_deg))
        if angle > 140:
            yield from conflict_site(first, second, gap_s=2.0)


def mergings(roads: RoadNetwork) -> Iterator[Site]:
    """Yield sites where the cars come from two lanes into one, car 1 behind car 0."""
    for first, second in manoeuvre_pairs(roads, lambda a, b: a.turn_deg != b.turn_deg):
        if first.lane_after == second.lane_after and first.lane_before != second.lane_before:
            ways = first.way_by_exit, second.way_by_exit
            if all(map(is_long_enough, ways)):
                yield junction_site(first, second, ways, 2.0)


def divergings(roads: RoadNetwork) -> Iterator[Site]:
    """Yield sites where car 1 follows car 0 in a lane until they part at a junction."""
    for first, second in manoeuvre_pairs(roads, lambda a, b: abs(a.turn_deg - b.turn_deg) > 30):
        if first.lane_before == second.lane_before and first.lane_after != second.lane_after:
            ways = first.way_by_entry, second.way_by_entry
            if all(map(is_long_enough, ways)):
                yield junction_site(first, second, ways, 2.0)


FINDERS: dict[str, Callable[[RoadNetwork], Iterator[Site]]] = {
    "following": followings,
    "crossing": crossings,
    "turning_meeting": turning_meetings,
    "merging": mergings,
    "diverging": divergings,
}


def manoeuvre_pairs(
    roads: RoadNetwork, wanted: Callable[[Manoeuvre, Manoeuvre], bool]
) -> Iterator[tuple[Manoeuvre, Manoeuvre]]:
    """Yield the ordered pairs of manoeuvres at one junction for which `wanted` is true."""
    for manoeuvres in roads.manoeuvres.values():
        for first, second in itertools.permutations(manoeuvres, 2):
            if wanted(first, second):
                yield first, second


def conflict_site(first: Manoeuvre, second: Manoeuvre, gap_s: float) -> Iterator[Site]:
    """Yield a site if the ways of two manoeuvres come within 4 m of each other, anchored where they are closest."""
    ways = first.way_by_entry, second.way_by_entry
    distance = cdist(ways[0].points[:, :2], ways[1].points[:, :2])
    heights = ways[0].points[:, 2], ways[1].points[:, 2]
    if max(np.max(heights[0]), np.max(heights[1])) - min(np.min(heights[0]), np.min(heights[1])) >= 1.0:
        distance[np.abs(heights[0][:, None] - heights[1][None, :]) >= 1.0] = np.inf
    i, j = np.unravel_index(int(np.argmin(distance)), distance.shape)
    if distance[i, j] > 4.0:
        return
    ways = ways[0].anchored(int(i)), ways[1].anchored(int(j))
    if all(map(is_long_enough, ways)):
        yield junction_site(first, second, ways, gap_s)


def junction_site(first: Manoeuvre, second: Manoeuvre, ways: tuple[Way, Way], gap_s: float) -> Site:
    approaches = "|".join(str(lane[0]) if lane else "" for lane in (first.lane_before, second.lane_before))
    name = f"{waypoint_name(first.entry)}|{waypoint_name(second.entry)}"
    return Site(name, ways, gap_s, junction=str(first.junction), approaches=approaches)


def waypoint_name(waypoint: Any) -> str:
    road, section, lane = lane_key(waypoint)
    return f"{road}.{section}.{lane}@{waypoint.s:.1f}"


def find_sites(roads: RoadNetwork, trajectory_type: str, max_oncoming_m: float = 20.0) -> list[Site]:
    """Return the town's sites of a trajectory type in a fixed order. TooFewSites when it has none."""
    if trajectory_type == "straight_meeting":
        sites = list(straight_meetings(roads, max_oncoming_m))
    else:
        sites = list(FINDERS[trajectory_type](roads))
    if not sites:
        raise TooFewSites(
            f"town {roads.town} cannot host the trajectory type {trajectory_type!r}: leave out the town or the type."
        )
    return sites
