"""What planning needs of a road network: lanes as polylines, ways chained through junctions, manoeuvres.

`carla.Map` answers the queries. Everything is sorted, so that a map gives the same lists on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import carla
import numpy as np

STEP_M = 1.0
"""Distance of neighbouring points of a way."""


def turn(first_deg: float, second_deg: float) -> float:
    """Return the signed angle from one yaw to another in (-180, 180]; positive turns right (CARLA's yaw)."""
    return -((first_deg - second_deg + 180.0) % 360.0 - 180.0)


@dataclass(frozen=True)
class Way:
    """A way a car can drive, a point a metre."""

    points: np.ndarray
    """[N, 4] x, y, z in metres, yaw in degrees of the lane's direction"""
    anchor_m: float = 0.0
    """Arc length at which the way meets the other car's."""

    @property
    def stations(self) -> np.ndarray:
        """[N] arc length of the points in metres."""
        steps = np.linalg.norm(np.diff(self.points[:, :3], axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def length_m(self) -> float:
        return float(self.stations[-1])


@dataclass(frozen=True)
class Manoeuvre:
    """One way through a junction: the lane points of entry and exit, in driving order."""

    junction: int
    entry: carla.Waypoint
    exit: carla.Waypoint

    @property
    def turn_deg(self) -> float:
        """Positive to the right."""
        return turn(self.entry.transform.rotation.yaw, self.exit.transform.rotation.yaw)

    @property
    def is_straight(self) -> bool:
        return abs(self.turn_deg) < 25

    @property
    def key(self) -> tuple:
        return (self.junction, *lane_key(self.entry), self.entry.s > self.exit.s, *lane_key(self.exit))


def lane_key(waypoint: carla.Waypoint) -> tuple[int, int, int]:
    return waypoint.road_id, waypoint.section_id, waypoint.lane_id


def row(waypoint: carla.Waypoint) -> tuple[float, float, float, float]:
    pose = waypoint.transform
    return pose.location.x, pose.location.y, pose.location.z, pose.rotation.yaw


def straightest(waypoint: carla.Waypoint, choices: list[carla.Waypoint]) -> carla.Waypoint:
    """Return the choice that bends least; equal ones by lane."""
    if len(choices) == 1:
        return choices[0]
    yaw = waypoint.transform.rotation.yaw
    return min(choices, key=lambda w: (round(abs(turn(yaw, w.transform.rotation.yaw)), 1), lane_key(w)))


def chain(start: carla.Waypoint, length_m: float, *, backward: bool = False) -> list[carla.Waypoint]:
    """Follow a lane from `start` (left out) for `length_m` or until it ends, straight on at every fork."""
    found: list[carla.Waypoint] = []
    here = start
    for _ in range(int(length_m / STEP_M)):
        choices = here.previous(STEP_M) if backward else here.next(STEP_M)
        choices = [w for w in choices if w.lane_type == carla.LaneType.Driving]
        if not choices:
            break
        here = straightest(here, choices)
        found.append(here)
    return found[::-1] if backward else found


def way_through(waypoints: list[carla.Waypoint], before_m: float, after_m: float, anchor: int) -> Way:
    """Extend a list of waypoints at both ends; `anchor` is the index at which the cars meet."""
    head = chain(waypoints[0], before_m, backward=True)
    tail = chain(waypoints[-1], after_m)
    points = np.array([row(w) for w in (*head, *waypoints, *tail)])
    keep = np.concatenate([[True], np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1) > 0.05])
    anchor = int(keep[: len(head) + anchor + 1].sum()) - 1
    way = Way(points[keep])
    return Way(way.points, float(way.stations[anchor]))


def inside(manoeuvre: Manoeuvre) -> list[carla.Waypoint]:
    """Return the manoeuvre's waypoints from entry to exit, a metre apart."""
    found = [manoeuvre.entry]
    goal = lane_key(manoeuvre.exit)
    for _ in range(200):
        same = [w for w in found[-1].next(STEP_M) if lane_key(w)[0] == goal[0] and lane_key(w)[2] == goal[2]]
        if not same:
            break
        found.append(same[0])
    return found


class RoadNetwork:
    """A town's driving lanes, from its OpenDRIVE text (which must have passed `check_opendrive`, trap 14)."""

    def __init__(self, town: str, opendrive: str) -> None:
        self.town = town
        self.map = carla.Map(town, opendrive)
        waypoints = [w for w in self.map.generate_waypoints(4.0) if w.lane_type == carla.LaneType.Driving]
        self.waypoints = sorted(
            (w for w in waypoints if not w.is_junction), key=lambda w: (*lane_key(w), round(w.s, 3))
        )
        self.rows = np.array([row(w) for w in self.waypoints]).reshape(-1, 4)

    def oncoming(self, waypoint: carla.Waypoint, max_lateral_m: float = 20.0) -> carla.Waypoint | None:
        """Return the nearest lane point beside `waypoint` on its left or right that runs the other way.

        By geometry, so that it finds the other carriageway too, which is another road.
        """
        x, y, z, yaw = row(waypoint)
        delta = self.rows[:, :2] - (x, y)
        forward = np.array([math.cos(math.radians(yaw)), math.sin(math.radians(yaw))])
        along, across = delta @ forward, np.abs(delta @ np.array([-forward[1], forward[0]]))
        opposite = np.abs(np.abs((self.rows[:, 3] - yaw + 180) % 360 - 180)) > 160
        near = opposite & (np.abs(along) < 3) & (across < max_lateral_m) & (np.abs(self.rows[:, 2] - z) < 1.5)
        if not near.any():
            return None
        return self.waypoints[int(np.flatnonzero(near)[np.argmin(across[near])])]

    def manoeuvres(self) -> dict[int, list[Manoeuvre]]:
        """Return the ways through each junction, by junction id."""
        junctions = {}
        for start, end in self.map.get_topology():
            for waypoint in (start, end):
                if waypoint.is_junction:
                    junctions[waypoint.junction_id] = waypoint.get_junction()
        found: dict[int, list[Manoeuvre]] = {}
        for number in sorted(junctions):
            pairs = junctions[number].get_waypoints(carla.LaneType.Driving)
            ways = {m.key: m for m in (Manoeuvre(number, entry, exit) for entry, exit in pairs)}
            found[number] = [ways[key] for key in sorted(ways)]
        return found
