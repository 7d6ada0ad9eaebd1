"""The road network as planning needs it: lanes as polylines, ways through junctions, manoeuvres.

`carla.Map` answers the queries. Results are sorted, so a map gives the same lists on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import carla
import numpy as np

STEP_M = 1.0
"""Distance between neighbouring points of a way."""
REACH_M = 60.0
"""Length of a way before and after the place where the cars meet, as far as the road allows."""


def signed_angle_deg(first_deg: float, second_deg: float) -> float:
    """Return the signed angle from one yaw to another in (-180, 180]; positive turns right (CARLA's yaw)."""
    return -((first_deg - second_deg + 180.0) % 360.0 - 180.0)


@dataclass(frozen=True)
class Way:
    """A route that a car can drive, as one point per metre."""

    points: np.ndarray
    """[N, 4] x, y, z in metres, yaw in degrees of the lane's direction"""
    stations: np.ndarray
    """[N]: arc length at each point, in metres."""
    anchor_m: float
    """Arc length at which the cars meet."""

    @classmethod
    def along(cls, points: np.ndarray, anchor: int) -> Way:
        """Return the way along points [N, 4], anchored at one of them."""
        steps = np.linalg.norm(np.diff(points[:, :3], axis=0), axis=1)
        stations = np.concatenate([[0.0], np.cumsum(steps)])
        return cls(points, stations, float(stations[anchor]))

    def anchored(self, anchor: int) -> Way:
        """Return the same way, anchored at another of its points."""
        return replace(self, anchor_m=float(self.stations[anchor]))

    @property
    def length_m(self) -> float:
        return float(self.stations[-1])


def lane_key(waypoint: carla.Waypoint) -> tuple[int, int, int]:
    return waypoint.road_id, waypoint.section_id, waypoint.lane_id


def lane_point(waypoint: carla.Waypoint) -> tuple[float, float, float, float]:
    """Return x, y, z in metres and the yaw in degrees of a waypoint."""
    pose = waypoint.transform
    return pose.location.x, pose.location.y, pose.location.z, pose.rotation.yaw


def straightest(waypoint: carla.Waypoint, choices: list[carla.Waypoint]) -> carla.Waypoint:
    """Return the choice that bends least, the first by lane among equals."""
    if len(choices) == 1:
        return choices[0]
    yaw = waypoint.transform.rotation.yaw
    return min(choices, key=lambda w: (round(abs(signed_angle_deg(yaw, w.transform.rotation.yaw)), 1), lane_key(w)))


def follow_lane(start: carla.Waypoint, length_m: float, *, backward: bool = False) -> list[carla.Waypoint]:
    """Return the waypoints that follow `start` in its lane for `length_m`, or until it ends, straight on at forks."""
    waypoints: list[carla.Waypoint] = []
    here = start
    for _ in range(int(length_m / STEP_M)):
        choices = here.previous(STEP_M) if backward else here.next(STEP_M)
        choices = [w for w in choices if w.lane_type == carla.LaneType.Driving]
        if not choices:
            break
        here = straightest(here, choices)
        waypoints.append(here)
    return waypoints[::-1] if backward else waypoints


def way_through(waypoints: list[carla.Waypoint], before_m: float, after_m: float, anchor: int) -> Way:
    """Return the way of a list of waypoints, extended at both ends; `anchor` is the index at which the cars meet."""
    head = follow_lane(waypoints[0], before_m, backward=True)
    tail = follow_lane(waypoints[-1], after_m)
    points = np.array([lane_point(w) for w in (*head, *waypoints, *tail)])
    keep = np.concatenate([[True], np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1) > 0.05])
    return Way.along(points[keep], int(keep[: len(head) + anchor + 1].sum()) - 1)


@dataclass(frozen=True)
class Manoeuvre:
    """One route through a junction: the waypoints where it enters and leaves.

    What every pair of manoeuvres asks for is computed once: a large junction has thousands of pairs.
    """

    junction: int
    entry: carla.Waypoint
    exit: carla.Waypoint

    @cached_property
    def entry_deg(self) -> float:
        """Yaw of the lane where it enters."""
        return float(self.entry.transform.rotation.yaw)

    @cached_property
    def turn_deg(self) -> float:
        """Positive to the right."""
        return signed_angle_deg(self.entry_deg, self.exit.transform.rotation.yaw)

    @property
    def is_straight(self) -> bool:
        return abs(self.turn_deg) < 25

    @cached_property
    def key(self) -> tuple:
        return (self.junction, *lane_key(self.entry), self.entry.s > self.exit.s, *lane_key(self.exit))

    @cached_property
    def waypoints(self) -> list[carla.Waypoint]:
        """From its entry to its exit, one per metre."""
        waypoints = [self.entry]
        goal = lane_key(self.exit)
        for _ in range(200):
            ahead = waypoints[-1].next(STEP_M)
            same_lane = [w for w in ahead if lane_key(w)[0] == goal[0] and lane_key(w)[2] == goal[2]]
            if not same_lane:
                break
            waypoints.append(same_lane[0])
        return waypoints

    @cached_property
    def way_by_entry(self) -> Way:
        """Its way, anchored where it enters the junction."""
        return way_through(self.waypoints, REACH_M, REACH_M, 0)

    @cached_property
    def way_by_exit(self) -> Way:
        """Its way, anchored where it leaves the junction."""
        return way_through(self.waypoints, REACH_M, REACH_M, len(self.waypoints) - 1)

    @cached_property
    def lane_after(self) -> tuple[int, int, int] | None:
        """Key of the lane a few metres behind the junction."""
        after = follow_lane(self.exit, 4.0)
        return lane_key(after[-1]) if after else None

    @cached_property
    def lane_before(self) -> tuple[int, int, int] | None:
        """Key of the lane a few metres before the junction."""
        before = follow_lane(self.entry, 4.0, backward=True)
        return lane_key(before[0]) if before else None


class RoadNetwork:
    """A town's driving lanes, from its OpenDRIVE text, which must have passed `check_opendrive` (trap 14: malformed
    maps crash)."""

    def __init__(self, town: str, opendrive: str) -> None:
        self.town = town
        self.map = carla.Map(town, opendrive)
        waypoints = [w for w in self.map.generate_waypoints(4.0) if w.lane_type == carla.LaneType.Driving]
        self.waypoints = sorted(
            (w for w in waypoints if not w.is_junction), key=lambda w: (*lane_key(w), round(w.s, 3))
        )
        self.lane_points = np.array([lane_point(w) for w in self.waypoints]).reshape(-1, 4)
        self.ways: dict[tuple, Way] = {}

    def way_at(self, waypoint: carla.Waypoint) -> Way:
        """Return the way in a waypoint's lane, anchored there. It is computed once: several types of sites ask for
        it."""
        key = (*lane_key(waypoint), waypoint.s)
        if key not in self.ways:
            self.ways[key] = way_through([waypoint], REACH_M, REACH_M, 0)
        return self.ways[key]

    def oncoming(self, waypoint: carla.Waypoint, max_lateral_m: float) -> carla.Waypoint | None:
        """Return the nearest waypoint beside `waypoint`, on either side, in a lane of the opposite direction.

        Found by geometry, because the other carriageway may be another road.
        """
        x, y, z, yaw = lane_point(waypoint)
        delta = self.lane_points[:, :2] - (x, y)
        forward = np.array([math.cos(math.radians(yaw)), math.sin(math.radians(yaw))])
        along, across = delta @ forward, np.abs(delta @ np.array([-forward[1], forward[0]]))
        opposite = np.abs(np.abs((self.lane_points[:, 3] - yaw + 180) % 360 - 180)) > 160
        near = opposite & (np.abs(along) < 3) & (across < max_lateral_m) & (np.abs(self.lane_points[:, 2] - z) < 1.5)
        if not near.any():
            return None
        return self.waypoints[int(np.flatnonzero(near)[np.argmin(across[near])])]

    @cached_property
    def manoeuvres(self) -> dict[int, list[Manoeuvre]]:
        """The manoeuvres at each junction, by junction id."""
        junctions = {}
        for start, end in self.map.get_topology():
            for waypoint in (start, end):
                if waypoint.is_junction:
                    junctions[waypoint.junction_id] = waypoint.get_junction()
        by_junction: dict[int, list[Manoeuvre]] = {}
        for junction_id in sorted(junctions):
            ends = junctions[junction_id].get_waypoints(carla.LaneType.Driving)
            manoeuvres = {m.key: m for m in (Manoeuvre(junction_id, entry, exit) for entry, exit in ends)}
            by_junction[junction_id] = [manoeuvres[key] for key in sorted(manoeuvres)]
        return by_junction
