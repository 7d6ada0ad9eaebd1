"""Scenes with a fact that only one agent can know at the start (`shared-world-bench`; docs/BENCHMARK.md).

Two agents drive towards each other on a straight two-way road. On either side a container stands across the verge, with
vehicles parked behind it. Agent 0 cannot see the vehicles on its right before it has passed the container; agent 1 sees
them from the start, across the road. What they look like is the fact. The other side is the same for agent 1, with
colours of its own, so each agent knows something that the other does not.

  appearance   which of four colours the parked vehicle has; three distances
  binding      which of two parked vehicles of different colours comes first. In every fifth scene agent 1 drives
               behind agent 0 and cannot know either: there, guessing is the right answer
  trajectory   nothing is parked; agent 1 keeps its lane or swerves, and then passes agent 0, which hardly moves

Lengths in metres. Local axes at a site: x along agent 0's lane, y to its right (CARLA's left-handed axes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.planning.errors import TooFewSites
from tasks.planning.preset import PlanPreset
from tasks.planning.roads import RoadNetwork, way_through
from tasks.planning.rows import plan_row, seed_of_text
from tasks.planning.sites import is_straight, waypoint_name

FACT_COLORS = ("232,232,232", "18,60,210", "16,140,40", "242,196,16")
"""White, blue, green, yellow: easy to tell apart, and from the agents' red."""
OBSERVER, INFORMANT = 0, 1
CONTAINER, VAN, COUPE = "static.prop.container", "vehicle.mercedes.sprinter", "vehicle.audi.tt"
HALF_SIZES_M = {CONTAINER: (3.03, 1.22, 1.3), VAN: (2.96, 0.99, 1.28), COUPE: (2.09, 0.99, 0.69)}
CAMERA_HEIGHT_M = 1.75
CAMERAS_M = ((0.3, 0.0), (-0.6, 0.0), (0.0, -0.3), (0.0, 0.3))
"""x and y of the rig's four cameras in the car's frame."""
SAFETY_M = 0.15
"""Margin by which a vehicle is enlarged when it must be hidden."""
CLEAR_M = 0.3
"""Space between the edge of the lane and a container, and between parked vehicles."""
STRAIGHT_M, FLAT_M = 26.0, 0.25
LANES_APART_M = (2.5, 5.0)
SWERVE_M, RUN_UP_M, PAST_M = 2.8, 4.0, 1.5
"""How far agent 1 swerves; how much farther away it then starts than agent 0, and how far past agent 0 it gets."""
EASE = 1.4
"""How much the cars slow down; 1 is a constant speed."""
DRAWS_PER_SPOT = 60
UNINFORMATIVE_EVERY = 5
REPEATED = 2
"""Scenes per test town whose frame 0 is recorded twice, to measure how much two recordings of one scene differ."""


@dataclass(frozen=True)
class FactSetting:
    """The geometry of one task at one distance."""

    vehicle: str
    count: int
    beyond_m: tuple[float, float]
    """Range of the distance from the middle of the agent's lane to the near side of the parked vehicles."""
    start_m: tuple[float, float]
    """Range of how far before the container an agent starts, measured along the road."""
    end_m: tuple[float, float]
    labels: int


SETTINGS = {
    ("appearance", "large"): FactSetting(VAN, 1, (4.0, 4.6), (5.0, 8.0), (4.5, 6.5), 4),
    ("appearance", "medium"): FactSetting(VAN, 1, (5.2, 6.2), (5.0, 8.0), (4.5, 6.5), 4),
    ("appearance", "small"): FactSetting(COUPE, 1, (4.6, 5.4), (5.0, 8.0), (4.0, 6.0), 4),
    ("binding", "large"): FactSetting(VAN, 2, (5.2, 5.8), (8.0, 10.5), (9.5, 11.5), 2),
    ("trajectory", "large"): FactSetting(VAN, 0, (0.0, 0.0), (2.5, 3.5), (-1.6, -1.0), 2),
}


@dataclass(frozen=True)
class Spot:
    """A piece of straight, flat two-way road."""

    name: str
    origin: tuple[float, float, float, float]
    """x, y, z, yaw of a point of agent 0's lane"""
    lane_width_m: float
    oncoming_m: float
    """Distance from the middle of agent 0's lane to the middle of agent 1's, which is on its left"""

    def pose(self, along: float, right: float, turn_deg: float = 0.0) -> list[float]:
        """Return the world pose (x, y, z, pitch, yaw, roll) of a place and heading in local axes."""
        x, y, z, yaw = self.origin
        cosine, sine = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
        heading = (yaw + turn_deg + 180.0) % 360.0 - 180.0
        return [
            round(float(value), 4)
            for value in (x + along * cosine - right * sine, y + along * sine + right * cosine, z, 0.0, heading, 0.0)
        ]


@dataclass(frozen=True)
class StaticActor:
    """A parked vehicle or a container: its blueprint, and its centre and heading in local axes."""

    blueprint: str
    along: float
    right: float
    turn_deg: float = 0.0
    color: str = ""

    def corners(self, safety_m: float = 0.0) -> np.ndarray:
        """Return [4, 2], the corners of its outline; headings are multiples of a right angle."""
        half = np.array(HALF_SIZES_M[self.blueprint][:2]) + safety_m
        if round(self.turn_deg) % 180:
            half = half[::-1]
        return np.array([self.along, self.right]) + half * [(-1, -1), (-1, 1), (1, 1), (1, -1)]

    @property
    def height(self) -> float:
        return 2 * HALF_SIZES_M[self.blueprint][2]

    def planned(self, spot: Spot) -> dict[str, Any]:
        """Return its entry in the plan's `extra_actors`."""
        return {
            "blueprint": self.blueprint,
            "attributes": {"color": self.color} if self.color else {},
            "transform": spot.pose(self.along, self.right, self.turn_deg),
        }


def is_blocked(eye: np.ndarray, points: np.ndarray, heights: np.ndarray | float, screen: StaticActor) -> np.ndarray:
    """Tell for each of the points [N, 2] at `heights` whether the screen hides it from a camera at `eye` [2]."""
    outline = screen.corners()
    low, high = outline.min(0), outline.max(0)
    way = points - eye
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (low - eye) / way, (high - eye) / way
    enter, leave = np.fmin(first, second).max(1), np.fmax(first, second).min(1)
    rise = np.asarray(heights) - CAMERA_HEIGHT_M
    highest = CAMERA_HEIGHT_M + np.maximum(enter * rise, np.minimum(leave, 1.0) * rise)
    return (enter < leave) & (enter > 0) & (enter < 1) & (highest < screen.height)


def is_hidden(agent: np.ndarray, heading_deg: float, parked: StaticActor, screen: StaticActor) -> bool:
    """Tell whether the screen hides all of what is parked from every camera of a car at `agent` [2].

    Testing the corners is enough, because the shadow of a convex screen is convex.
    """
    turn = np.radians(heading_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    eyes = agent + np.array(CAMERAS_M) @ rotation.T
    points = np.repeat(parked.corners(SAFETY_M), 2, axis=0)
    heights = np.tile([0.0, parked.height], len(points) // 2)
    return all(is_blocked(eye, points, heights, screen).all() for eye in eyes)


def share_in_sight(agent: np.ndarray, parked: StaticActor, screens: Sequence[StaticActor]) -> float:
    """Return which share of the corners and the centre of what is parked a car at `agent` sees, at half its height."""
    points = np.vstack([parked.corners(), [[parked.along, parked.right]]])
    covered = [is_blocked(agent, points, parked.height / 2, screen) for screen in screens]
    return float(np.mean(~np.any(covered, axis=0)))


def find_spots(roads: RoadNetwork) -> list[Spot]:
    """Return a town's straight, flat pieces of two-way road in a fixed order."""
    spots = []
    for waypoint in roads.waypoints:
        other = roads.oncoming(waypoint, LANES_APART_M[1])
        if other is None:
            continue
        way = way_through([waypoint], STRAIGHT_M, STRAIGHT_M, 0)
        enough = way.anchor_m > STRAIGHT_M - 2 and way.length_m - way.anchor_m > STRAIGHT_M - 2
        if not enough or not is_straight(way, STRAIGHT_M) or np.ptp(way.points[:, 2]) > FLAT_M:
            continue
        here, there = waypoint.transform.location, other.transform.location
        yaw = np.radians(waypoint.transform.rotation.yaw)
        left = (there.x - here.x) * np.sin(yaw) - (there.y - here.y) * np.cos(yaw)
        if LANES_APART_M[0] < left < LANES_APART_M[1]:
            origin = (here.x, here.y, here.z, waypoint.transform.rotation.yaw)
            spots.append(Spot(waypoint_name(waypoint), origin, float(waypoint.lane_width), float(left)))
    return spots


@dataclass(frozen=True)
class FactScene:
    """A scene in local axes, without its colours."""

    spot: Spot
    screens: tuple[StaticActor, ...]
    parked: tuple[tuple[StaticActor, ...], tuple[StaticActor, ...]]
    """On agent 0's right, and on agent 1's right"""
    paths: np.ndarray
    """[ticks, 2, 3]: along, right and turn (in degrees) of each agent"""
    informative: bool


def draw_side(spot: Spot, setting: FactSetting, rng: np.random.Generator) -> tuple[StaticActor, list[StaticActor]]:
    """Draw a container on the right of agent 0's lane and the vehicles parked behind it."""
    half = HALF_SIZES_M[CONTAINER]
    edge = spot.lane_width_m / 2 + CLEAR_M
    screen = StaticActor(CONTAINER, float(rng.uniform(-0.4, 0.4)), edge + half[0], 90.0)
    length, width = (2 * size for size in HALF_SIZES_M[setting.vehicle][:2])
    right = float(rng.uniform(*setting.beyond_m)) + width / 2
    along = screen.along + half[1] + CLEAR_M + length / 2 + float(rng.uniform(0.0, 0.3))
    return screen, [
        StaticActor(setting.vehicle, along + number * (length + CLEAR_M), right) for number in range(setting.count)
    ]


def mirror_to_agent1(spot: Spot, parked: StaticActor) -> StaticActor:
    """Rotate something by 180 degrees about the middle of the road: from agent 0's right to agent 1's."""
    return StaticActor(parked.blueprint, -parked.along, -spot.oncoming_m - parked.right, parked.turn_deg + 180.0)


def straight_path(ticks: int, start: float, end: float, right: float, turn_deg: float) -> np.ndarray:
    along = start + (end - start) * (1 - (1 - np.linspace(0, 1, ticks)) ** EASE)
    return np.stack([along, np.full(ticks, right), np.full(ticks, turn_deg)], 1)


def swerve(path: np.ndarray) -> np.ndarray:
    """Return the path of agent 1 [ticks, 3], swerving to its right until the middle tick."""
    share = np.clip(np.arange(len(path)) / max(len(path) // 2, 1), 0, 1)
    aside = path.copy()
    aside[:, 1] -= SWERVE_M * (3 * share**2 - 2 * share**3)
    step = np.diff(aside[:, :2], axis=0)
    heading = np.degrees(np.unwrap(np.arctan2(step[:, 1], step[:, 0])))
    aside[1:-1, 2] = (heading[1:] + heading[:-1]) / 2 % 360
    return aside


def draw_scene(
    preset: PlanPreset, spot: Spot, setting: FactSetting, informative: bool, rng: np.random.Generator
) -> FactScene | None:
    """Draw a scene that hides its fact; None when no draw does, for instance where the lanes are too wide."""
    for _ in range(DRAWS_PER_SPOT):
        starts = rng.uniform(*setting.start_m, 2)
        ends = rng.uniform(*setting.end_m, 2)
        aside = rng.uniform(-0.25, 0.25, 2)
        paths = [
            straight_path(preset.ticks, -starts[0], ends[0], aside[0], 0.0),
            straight_path(preset.ticks, starts[1], -ends[1], -spot.oncoming_m + aside[1], 180.0),
        ]
        if not informative:
            behind = paths[0][:, 0] - float(rng.uniform(6.0, 7.5))
            paths[1] = np.stack([behind, np.full(preset.ticks, aside[1]), np.zeros(preset.ticks)], 1)
        agents = [path[0, :2] for path in paths]
        if not setting.count:
            paths[1] = straight_path(preset.ticks, starts[1] + RUN_UP_M, ends[1] - PAST_M, paths[1][0, 1], 180.0)
            return FactScene(spot, (), ((), ()), np.stack(paths, 1), informative)
        sides = [draw_side(spot, setting, rng) for _ in range(2)]
        own_side, partner_side = (
            sides[0],
            (mirror_to_agent1(spot, sides[1][0]), [mirror_to_agent1(spot, car) for car in sides[1][1]]),
        )
        screens = (own_side[0], partner_side[0])
        hides = all(is_hidden(agents[OBSERVER], 0.0, car, own_side[0]) for car in own_side[1])
        if informative:
            hides &= all(share_in_sight(agents[INFORMANT], car, screens) >= 0.6 for car in own_side[1])
            hides &= all(is_hidden(agents[INFORMANT], 180.0, car, partner_side[0]) for car in partner_side[1])
        else:
            hides &= all(is_hidden(agents[INFORMANT], 0.0, car, own_side[0]) for car in own_side[1])
        if hides:
            return FactScene(
                spot, screens, (tuple(own_side[1]), tuple(partner_side[1])), np.stack(paths, 1), informative
            )
    return None


def draw_scene_at_first_possible_spot(
    preset: PlanPreset, spots: Sequence[Spot], setting: FactSetting, informative: bool, rng: np.random.Generator
) -> FactScene:
    """Draw a scene at the first of the spots that allows one. TooFewSites when none of them does."""
    for spot in spots:
        scene = draw_scene(preset, spot, setting, informative, rng)
        if scene is not None:
            return scene
    raise TooFewSites(
        f"none of {len(spots)} places hides its fact in {DRAWS_PER_SPOT} draws: choose other towns, or another fact."
    )


def actors_of(scene: FactScene, colors: tuple[list[str], list[str]]) -> list[dict[str, Any]]:
    """Return `extra_actors`: what is parked on agent 0's right, then on agent 1's, then the containers."""
    cars = [
        StaticActor(car.blueprint, car.along, car.right, car.turn_deg, color)
        for side, side_colors in zip(scene.parked, colors, strict=True)
        for car, color in zip(side, side_colors, strict=True)
    ]
    return [actor.planned(scene.spot) for actor in (*cars, *scene.screens)]


def poses_of(scene: FactScene, paths: np.ndarray) -> np.ndarray:
    """Return the agents' world poses [ticks, 2, 6] float32."""
    return np.array([[scene.spot.pose(*place) for place in tick] for tick in paths], np.float32)


def fact_scene_rows(
    preset: PlanPreset, shared: dict, spots: Sequence[Spot], number: int, key: list
) -> list[dict[str, Any]]:
    """Return the rows of a scene and of its twin, which differs only in the fact, and of some scenes also a repeat.

    The scene is at the first of the spots that allows it.
    """
    task, distance = preset.fact_task, distance_of(preset, shared["split"], number)
    setting, rng = SETTINGS[task, distance], np.random.default_rng(key)
    informative = task != "binding" or number % UNINFORMATIVE_EVERY != UNINFORMATIVE_EVERY - 1
    shared = shared | {"trajectory_type": "straight_meeting" if informative else "following"}
    scene = draw_scene_at_first_possible_spot(preset, spots, setting, informative, rng)
    shuffled_colors = [FACT_COLORS[k] for k in rng.permutation(len(FACT_COLORS))]
    label = int(rng.integers(setting.labels))
    twin = (label + 1 + int(rng.integers(setting.labels - 1))) % setting.labels
    fact = {"task": task, "distance": distance, "observer": OBSERVER, "labels": setting.labels,
            "informative": informative, "actors": list(range(setting.count))}  # fmt: skip
    partner_colors = [shuffled_colors[k % len(shuffled_colors)] for k in range(setting.count)]
    rows = []
    for variant, value in (("base", label), ("fact_changed", twin)):
        paths, own_colors = scene.paths, []
        if task == "appearance":
            fact, own_colors = fact | {"colors": list(FACT_COLORS)}, [FACT_COLORS[value]] * setting.count
        elif task == "binding":
            pair = sorted(shuffled_colors[2:], key=FACT_COLORS.index)
            fact, own_colors = fact | {"colors": pair}, pair[:: -1 if value else 1]
        else:
            fact = fact | {"colors": []}
            if value:
                paths = np.stack([paths[:, 0], swerve(paths[:, 1])], 1)
        whole = variant == "base" or shared["split"] != "train"
        made = [(variant, paths if whole else paths[:1])]
        if variant == "base" and shared["split"] == "test" and number < REPEATED:
            made.append(("repeat", paths[:1]))
        rows += [
            plan_row(
                preset, shared, {"name": scene.spot.name}, {"number": number}, poses_of(scene, path), name, key,
                extra_actors=actors_of(scene, (own_colors, partner_colors)), fact=fact | {"label": value},
            )
            for name, path in made
        ]  # fmt: skip
    return rows


def distance_of(preset: PlanPreset, split: str, number: int) -> str:
    """Return the distance of a town's `number`-th scene; training scenes may cycle through several (a curriculum)."""
    distances = preset.train_distances if split == "train" else ()
    return distances[number % len(distances)] if distances else preset.fact_distance


def hidden_fact_rows(preset: PlanPreset, roads: RoadNetwork, opendrive_sha256: str) -> list[dict[str, Any]]:
    """Return a town's rows: a scene and its twin, `recordings_per_town` (in test: `test_recordings_per_town`) times."""
    town, spots = roads.town, find_spots(roads)
    if not spots:
        raise TooFewSites(f"town {town} has no straight, flat, two-way road of {2 * STRAIGHT_M:.0f} m: leave it out.")
    split = preset.split_of(town)
    order = np.random.default_rng([preset.seed, seed_of_text(town)]).permutation(len(spots))
    rows = []
    for number in range(preset.test_recordings_per_town if split == "test" else preset.recordings_per_town):
        weather = preset.weathers[number % len(preset.weathers)]
        tried_in_order = [spots[index] for index in np.roll(order, -number)]
        shared = {"town": town, "opendrive_sha256": opendrive_sha256, "weather": weather, "split": split}
        key = [preset.seed, seed_of_text(town), seed_of_text(preset.fact_task), number]
        rows += fact_scene_rows(preset, shared, tried_in_order, number, key)
    return rows
