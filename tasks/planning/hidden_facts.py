"""Scenes with a fact that only one agent can know at the start (`shared-world-bench`; docs/BENCHMARK.md).

On a straight two-way road agent 0 drives along, agent 1 comes towards it. At either side of the road a container stands
across the verge; behind it, seen from the agent that comes along, vehicles are parked. Agent 0 cannot see those at its
right until it has passed the container; agent 1 sees them from the start, across the road. What they are like is the
fact. The same stands at the other side for agent 1, with colours of its own: both agents have something to tell.

  appearance   which of four colours the parked vehicle has; three distances
  binding      two parked vehicles of two colours: which stands first? In every fifth scene agent 1 drives behind
               agent 0 and cannot know either: there, chance is the right answer
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
from tasks.planning.rows import finished, word
from tasks.planning.sites import is_straight, name_of

COLORS = ("232,232,232", "18,60,210", "16,140,40", "242,196,16")
"""White, blue, green, yellow: far apart, and none is the agents' red."""
OBSERVER, INFORMANT = 0, 1
CONTAINER, VAN, COUPE = "static.prop.container", "vehicle.mercedes.sprinter", "vehicle.audi.tt"
HALF_SIZES_M = {CONTAINER: (3.03, 1.22, 1.3), VAN: (2.96, 0.99, 1.28), COUPE: (2.09, 0.99, 0.69)}
CAMERA_HEIGHT_M = 1.75
CAMERAS_M = ((0.3, 0.0), (-0.6, 0.0), (0.0, -0.3), (0.0, 0.3))
"""Of the rig's four cameras in the car's frame, x and y."""
SAFETY_M = 0.15
"""By which a vehicle is taken larger than it is when it has to be hidden."""
CLEAR_M = 0.3
"""Between the edge of the lane and a container; between what is parked in a row."""
STRAIGHT_M, FLAT_M = 26.0, 0.25
LANES_APART_M = (2.5, 5.0)
SWERVE_M, RUN_UP_M, PAST_M = 2.8, 4.0, 1.5
"""How far agent 1 swerves; how much farther away than agent 0 it starts then, and how far it gets past it."""
EASE = 1.4
"""The cars slow down: 1 is an even speed."""
ATTEMPTS = 60
UNINFORMATIVE_EVERY = 5
REPEATED = 2
"""Scenes of each test town whose frame 0 is recorded twice: how much do two recordings of one scene differ?"""


@dataclass(frozen=True)
class Setting:
    """What one task at one distance looks like."""

    vehicle: str
    count: int
    beyond_m: tuple[float, float]
    """From the middle of the agent's lane to the near side of what is parked."""
    start_m: tuple[float, float]
    """How far before the container an agent starts; measured along the road."""
    end_m: tuple[float, float]
    labels: int


SETTINGS = {
    ("appearance", "large"): Setting(VAN, 1, (4.0, 4.6), (5.0, 8.0), (4.5, 6.5), 4),
    ("appearance", "medium"): Setting(VAN, 1, (5.2, 6.2), (5.0, 8.0), (4.5, 6.5), 4),
    ("appearance", "small"): Setting(COUPE, 1, (4.6, 5.4), (5.0, 8.0), (4.0, 6.0), 4),
    ("binding", "large"): Setting(VAN, 2, (5.2, 5.8), (8.0, 10.5), (9.5, 11.5), 2),
    ("trajectory", "large"): Setting(VAN, 0, (0.0, 0.0), (2.5, 3.5), (-1.6, -1.0), 2),
}


@dataclass(frozen=True)
class Spot:
    """A piece of straight, flat two-way road."""

    name: str
    origin: tuple[float, float, float, float]
    """x, y, z, yaw of a point of agent 0's lane"""
    lane_width_m: float
    oncoming_m: float
    """From the middle of agent 0's lane to the middle of agent 1's, which is at its left"""

    def pose(self, along: float, right: float, turn_deg: float = 0.0) -> list[float]:
        """Return the world pose (x, y, z, pitch, yaw, roll) of a local place."""
        x, y, z, yaw = self.origin
        cosine, sine = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
        heading = (yaw + turn_deg + 180.0) % 360.0 - 180.0
        return [
            round(float(value), 4)
            for value in (x + along * cosine - right * sine, y + along * sine + right * cosine, z, 0.0, heading, 0.0)
        ]


@dataclass(frozen=True)
class Parked:
    """Something that stands there: blueprint, middle and heading in local axes."""

    blueprint: str
    along: float
    right: float
    turn_deg: float = 0.0
    color: str = ""

    def corners(self, safety_m: float = 0.0) -> np.ndarray:
        """Return [4, 2] the corners of its outline; headings are multiples of a right angle."""
        half = np.array(HALF_SIZES_M[self.blueprint][:2]) + safety_m
        if round(self.turn_deg) % 180:
            half = half[::-1]
        return np.array([self.along, self.right]) + half * [(-1, -1), (-1, 1), (1, 1), (1, -1)]

    @property
    def height(self) -> float:
        return 2 * HALF_SIZES_M[self.blueprint][2]

    def actor(self, spot: Spot) -> dict[str, Any]:
        """Return its entry in `extra_actors`."""
        return {
            "blueprint": self.blueprint,
            "attributes": {"color": self.color} if self.color else {},
            "transform": spot.pose(self.along, self.right, self.turn_deg),
        }


def blocked(eye: np.ndarray, points: np.ndarray, heights: np.ndarray | float, screen: Parked) -> np.ndarray:
    """Tell of each of the points [N, 2] at `heights` whether a screen stands between it and a camera at `eye` [2]."""
    outline = screen.corners()
    low, high = outline.min(0), outline.max(0)
    way = points - eye
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (low - eye) / way, (high - eye) / way
    enter, leave = np.fmin(first, second).max(1), np.fmax(first, second).min(1)
    rise = np.asarray(heights) - CAMERA_HEIGHT_M
    highest = CAMERA_HEIGHT_M + np.maximum(enter * rise, np.minimum(leave, 1.0) * rise)
    return (enter < leave) & (enter > 0) & (enter < 1) & (highest < screen.height)


def hidden(agent: np.ndarray, heading_deg: float, parked: Parked, screen: Parked) -> bool:
    """Tell whether no camera of a car at `agent` [2] can see anything of what is parked.

    The shadow of a convex screen is convex, so the corners decide.
    """
    turn = np.radians(heading_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    eyes = agent + np.array(CAMERAS_M) @ rotation.T
    points = np.repeat(parked.corners(SAFETY_M), 2, axis=0)
    heights = np.tile([0.0, parked.height], len(points) // 2)
    return all(blocked(eye, points, heights, screen).all() for eye in eyes)


def share_in_sight(agent: np.ndarray, parked: Parked, screens: Sequence[Parked]) -> float:
    """Return the share of the outline's corners and its middle that the car at `agent` has in sight, half way up."""
    points = np.vstack([parked.corners(), [[parked.along, parked.right]]])
    covered = [blocked(agent, points, parked.height / 2, screen) for screen in screens]
    return float(np.mean(~np.any(covered, axis=0)))


def find_spots(roads: RoadNetwork) -> list[Spot]:
    """Return the straight, flat pieces of two-way road of a town, in a fixed order."""
    found = []
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
            found.append(Spot(name_of(waypoint), origin, float(waypoint.lane_width), float(left)))
    return found


@dataclass(frozen=True)
class Scene:
    """One scene in local axes, without its colours."""

    spot: Spot
    screens: tuple[Parked, ...]
    parked: tuple[tuple[Parked, ...], tuple[Parked, ...]]
    """At agent 0's right, at agent 1's right"""
    paths: np.ndarray
    """[ticks, 2, 3] along, right, turn in degrees of both agents"""
    informative: bool


def draw_side(spot: Spot, setting: Setting, rng: np.random.Generator) -> tuple[Parked, list[Parked]]:
    """Draw a container and what is parked behind it at the right of the lane, for an agent that drives along x."""
    half = HALF_SIZES_M[CONTAINER]
    edge = spot.lane_width_m / 2 + CLEAR_M
    screen = Parked(CONTAINER, float(rng.uniform(-0.4, 0.4)), edge + half[0], 90.0)
    length, width = (2 * size for size in HALF_SIZES_M[setting.vehicle][:2])
    right = float(rng.uniform(*setting.beyond_m)) + width / 2
    along = screen.along + half[1] + CLEAR_M + length / 2 + float(rng.uniform(0.0, 0.3))
    return screen, [
        Parked(setting.vehicle, along + number * (length + CLEAR_M), right) for number in range(setting.count)
    ]


def opposite(spot: Spot, parked: Parked) -> Parked:
    """Turn something half round the middle between both lanes: from agent 0's right to agent 1's."""
    return Parked(parked.blueprint, -parked.along, -spot.oncoming_m - parked.right, parked.turn_deg + 180.0)


def straight_path(ticks: int, start: float, end: float, right: float, turn_deg: float) -> np.ndarray:
    along = start + (end - start) * (1 - (1 - np.linspace(0, 1, ticks)) ** EASE)
    return np.stack([along, np.full(ticks, right), np.full(ticks, turn_deg)], 1)


def swerved(path: np.ndarray) -> np.ndarray:
    """Return the path of agent 1 [ticks, 3], turned aside to its right until its middle tick."""
    share = np.clip(np.arange(len(path)) / max(len(path) // 2, 1), 0, 1)
    aside = path.copy()
    aside[:, 1] -= SWERVE_M * (3 * share**2 - 2 * share**3)
    step = np.diff(aside[:, :2], axis=0)
    heading = np.degrees(np.unwrap(np.arctan2(step[:, 1], step[:, 0])))
    aside[1:-1, 2] = (heading[1:] + heading[:-1]) / 2 % 360
    return aside


def draw_scene(
    preset: PlanPreset, spot: Spot, setting: Setting, informative: bool, rng: np.random.Generator
) -> Scene | None:
    """Draw one scene that hides its fact; None when none does, as where the lanes are too wide."""
    for _ in range(ATTEMPTS):
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
            return Scene(spot, (), ((), ()), np.stack(paths, 1), informative)
        sides = [draw_side(spot, setting, rng) for _ in range(2)]
        mine, theirs = sides[0], (opposite(spot, sides[1][0]), [opposite(spot, car) for car in sides[1][1]])
        screens = (mine[0], theirs[0])
        kept = all(hidden(agents[OBSERVER], 0.0, car, mine[0]) for car in mine[1])
        if informative:
            kept &= all(share_in_sight(agents[INFORMANT], car, screens) >= 0.6 for car in mine[1])
            kept &= all(hidden(agents[INFORMANT], 180.0, car, theirs[0]) for car in theirs[1])
        else:
            kept &= all(hidden(agents[INFORMANT], 0.0, car, mine[0]) for car in mine[1])
        if kept:
            return Scene(spot, screens, (tuple(mine[1]), tuple(theirs[1])), np.stack(paths, 1), informative)
    return None


def first_that_hides(
    preset: PlanPreset, spots: Sequence[Spot], setting: Setting, informative: bool, rng: np.random.Generator
) -> Scene:
    """Draw a scene at the first of the spots that allows one. TooFewSites when none does."""
    for spot in spots:
        scene = draw_scene(preset, spot, setting, informative, rng)
        if scene is not None:
            return scene
    raise TooFewSites(
        f"none of {len(spots)} places hides its fact in {ATTEMPTS} draws: choose other towns, or another fact."
    )


def actors_of(scene: Scene, colors: tuple[list[str], list[str]]) -> list[dict[str, Any]]:
    """Return `extra_actors`: first what is parked at agent 0's right, then at agent 1's, then the containers."""
    cars = [
        Parked(car.blueprint, car.along, car.right, car.turn_deg, color)
        for side, shades in zip(scene.parked, colors, strict=True)
        for car, color in zip(side, shades, strict=True)
    ]
    return [thing.actor(scene.spot) for thing in (*cars, *scene.screens)]


def poses_of(scene: Scene, paths: np.ndarray) -> np.ndarray:
    """Return the agents' world poses [ticks, 2, 6] float32."""
    return np.array([[scene.spot.pose(*place) for place in tick] for tick in paths], np.float32)


def scene_rows(preset: PlanPreset, shared: dict, spots: Sequence[Spot], number: int, key: list) -> list[dict[str, Any]]:
    """Return a scene's row and its twin's, in which only the fact is another; of some also a repeat's.

    At the first of the spots that allows the scene.
    """
    task, distance = preset.fact_task, distance_of(preset, shared["split"], number)
    setting, rng = SETTINGS[task, distance], np.random.default_rng(key)
    informative = task != "binding" or number % UNINFORMATIVE_EVERY != UNINFORMATIVE_EVERY - 1
    shared = shared | {"trajectory_type": "straight_meeting" if informative else "following"}
    scene = first_that_hides(preset, spots, setting, informative, rng)
    shades = [COLORS[k] for k in rng.permutation(len(COLORS))]
    label = int(rng.integers(setting.labels))
    twin = (label + 1 + int(rng.integers(setting.labels - 1))) % setting.labels
    fact = {"task": task, "distance": distance, "observer": OBSERVER, "labels": setting.labels,
            "informative": informative, "actors": list(range(setting.count))}  # fmt: skip
    theirs = [shades[k % len(shades)] for k in range(setting.count)]
    rows = []
    for variant, value in (("base", label), ("fact_changed", twin)):
        paths, mine = scene.paths, []
        if task == "appearance":
            fact, mine = fact | {"colors": list(COLORS)}, [COLORS[value]] * setting.count
        elif task == "binding":
            pair = sorted(shades[2:], key=COLORS.index)
            fact, mine = fact | {"colors": pair}, pair[:: -1 if value else 1]
        else:
            fact = fact | {"colors": []}
            if value:
                paths = np.stack([paths[:, 0], swerved(paths[:, 1])], 1)
        whole = variant == "base" or shared["split"] != "train"
        made = [(variant, paths if whole else paths[:1])]
        if variant == "base" and shared["split"] == "test" and number < REPEATED:
            made.append(("repeat", paths[:1]))
        rows += [
            finished(
                preset, shared, {"name": scene.spot.name}, {"number": number}, poses_of(scene, path), name, key,
                extra_actors=actors_of(scene, (mine, theirs)), fact=fact | {"label": value},
            )
            for name, path in made
        ]  # fmt: skip
    return rows


def distance_of(preset: PlanPreset, split: str, number: int) -> str:
    """Return the distance of a town's `number`-th scene: training may go from large to small (a curriculum)."""
    turns = preset.train_distances if split == "train" else ()
    return turns[number % len(turns)] if turns else preset.fact_distance


def hidden_fact_rows(preset: PlanPreset, roads: RoadNetwork, opendrive_sha256: str) -> list[dict[str, Any]]:
    """Return a town's rows: a scene and its twin, `recordings_per_town` times (`test_recordings_per_town` in test)."""
    town, spots = roads.town, find_spots(roads)
    if not spots:
        raise TooFewSites(f"town {town} has no straight, flat, two-way road of {2 * STRAIGHT_M:.0f} m: leave it out.")
    split = preset.split_of(town)
    order = np.random.default_rng([preset.seed, word(town)]).permutation(len(spots))
    rows = []
    for number in range(preset.test_recordings_per_town if split == "test" else preset.recordings_per_town):
        weather = preset.weathers[number % len(preset.weathers)]
        turn = [spots[place] for place in np.roll(order, -number)]
        shared = {"town": town, "opendrive_sha256": opendrive_sha256, "weather": weather, "split": split}
        rows += scene_rows(preset, shared, turn, number, [preset.seed, word(town), word(preset.fact_task), number])
    return rows
