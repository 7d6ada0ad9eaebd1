"""`python -m tasks.play.make_scenes`: plan the scenes in held-out towns and render their first pictures.

Needs nothing but the embedded simulator. Equal code gives equal files.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import carla
import numpy as np
from PIL import Image

from infra.storage import atomic_file, sha256_bytes
from tasks.planning.hidden_facts import hidden_fact_rows
from tasks.planning.motion import MAX_BRAKE_MPS2
from tasks.planning.preset import PlanPreset
from tasks.planning.roads import RoadNetwork, lane_key
from tasks.planning.rows import AGENTS
from tasks.planning.town import TownPlan
from tasks.play.scenes import FOLDER, FRAME_S, PlayScene, picture_file, poses_as_dicts
from tasks.play.simulator import Simulator

VIEW = 192, 128
"""Width and height in pixels of the stored first pictures' views; a model's own are these, shrunk."""
SECONDS = 12.0, 10.0, 8.0
"""Length of a planned trajectory: the longest that the roads allow."""
FACT_SECONDS = 3.2
WHOLE_FRAMES = 48
"""New frames of whole windows of 9, 17, 25 and 49 frames: any of these models can generate a scene to its end."""
MAP_REACH_M = 70.0
MAP_STEP_M = 3.0


@dataclass(frozen=True)
class Recipe:
    """What to plan for a scene."""

    name: str
    title: str
    about: str
    town: str
    weather: str
    kind: str
    """A trajectory type, or a preset of hidden facts"""
    number: int = 0
    """Which of the town's scenes of this kind"""


RECIPES = (
    Recipe("1-crossing", "A crossing", "Both go straight on, one after the other.", "Mini11", "clear_noon", "crossing"),
    Recipe("2-meeting", "A straight meeting", "Two cars pass each other on a straight road.", "Mini12", "clear_noon",
           "straight_meeting"),
    Recipe("3-following", "One behind the other", "Car 1 follows car 0 and has it in sight all the way.", "Mini10",
           "wet_overcast", "following"),
    Recipe("4-turning", "A turn across", "Car 0 goes straight on; car 1 comes towards it and turns.", "Mini10",
           "clear_noon", "turning_meeting"),
    Recipe("5-merging", "Two lanes into one", "The cars come from two roads into one lane.", "Mini12", "foggy_sunset",
           "merging"),
    Recipe("6-hidden-van", "What only the other car saw",
           "A van stands behind the container on car 0's right. Only car 1 saw its colour: drive past and look.",
           "Mini11", "clear_noon", "shared-world-bench", 1),
    Recipe("7-hidden-pair", "Which of two comes first",
           "Two vehicles of different colours stand behind the container on car 0's right. Only car 1 saw which is "
           "first.", "Mini12", "clear_noon", "shared-world-bench-binding"),
)  # fmt: skip


def planned_row(recipe: Recipe, roads: RoadNetwork, digest: str) -> dict[str, Any]:
    """Return the row of the plan that a recipe means: of hidden facts, or of the longest drive that the roads allow."""
    if recipe.kind.startswith("shared-world-bench"):
        preset = PlanPreset.load(recipe.kind).replace(
            towns=[recipe.town], weathers=[recipe.weather], test_recordings_per_town=recipe.number + 1,
            ticks=round(FACT_SECONDS / FRAME_S) + 1, fixed_delta_s=FRAME_S, windows=[0],
        )  # fmt: skip
        rows = hidden_fact_rows(preset, roads, digest)
        return [row for row in rows if row["variant"] == "base"][recipe.number]
    for seconds in SECONDS:
        preset = PlanPreset.load("demo").replace(
            towns=[recipe.town], weathers=[recipe.weather], trajectory_types=[recipe.kind],
            recordings_per_town=recipe.number + 1, ticks=round(seconds / FRAME_S) + 1, fixed_delta_s=FRAME_S,
            stride=1, frames=9, windows=[0], short_towns="less", min_speed_mps=5.0, max_speed_mps=8.0,
        )  # fmt: skip
        rows = TownPlan(preset, recipe.town, roads, digest).planned_rows()
        if len(rows) > recipe.number:
            return rows[recipe.number]
    raise SystemExit(f"{recipe.town} has no place for {recipe.name}: choose another town.")


def ending_at_rest(poses: np.ndarray) -> np.ndarray:
    """Return a car's poses [T, 6] along the same path, braking at the end so that it stops there: [T', 6], T' > T."""
    steps = np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1)
    way = np.concatenate([[0.0], np.cumsum(steps)])
    speed = steps / FRAME_S
    braking = way[1:] + speed**2 / (2 * MAX_BRAKE_MPS2) >= way[-1]
    begin = int(np.argmax(braking)) if braking.any() else len(way) - 1
    at, v = list(way[: begin + 1]), float(speed[min(begin, len(speed) - 1)])
    while v > 0 and at[-1] < way[-1] - 1e-3:
        at.append(min(at[-1] + v * FRAME_S, way[-1]))
        v -= MAX_BRAKE_MPS2 * FRAME_S
    yaw = np.unwrap(np.radians(poses[:, 4]))
    columns = [np.interp(at, way, poses[:, k]) for k in range(6)]
    columns[4] = (np.degrees(np.interp(at, way, yaw)) + 180) % 360 - 180
    return np.stack(columns, 1)


def both_at_rest(poses: np.ndarray) -> np.ndarray:
    """Return trajectories [A, T', 6] of poses [T, A, 6]: both brake at the end and wait until T' is one frame and a
    multiple of WHOLE_FRAMES."""
    cars = [ending_at_rest(poses[:, agent]) for agent in range(AGENTS)]
    length = 1 + WHOLE_FRAMES * math.ceil((max(map(len, cars)) - 1) / WHOLE_FRAMES)
    return np.stack([np.pad(car, ((0, length - len(car)), (0, 0)), mode="edge") for car in cars])


def lanes_near(roads: RoadNetwork, trajectories: np.ndarray) -> list[dict[str, Any]]:
    """Return the lanes around the trajectories [A, T, 6], for the map."""
    lanes: dict[tuple, list] = {}
    for waypoint in roads.map.generate_waypoints(MAP_STEP_M):
        if waypoint.lane_type == carla.LaneType.Driving:
            lanes.setdefault(lane_key(waypoint), []).append(waypoint)
    middle = trajectories[..., :2].reshape(-1, 2)
    near = []
    for key in sorted(lanes):
        lane = sorted(lanes[key], key=lambda waypoint: waypoint.s)
        points = np.array([[w.transform.location.x, w.transform.location.y] for w in lane])
        apart = np.linalg.norm(points[:, None] - middle[None, ::10], axis=-1).min(1)
        if len(points) > 1 and apart.min() < MAP_REACH_M:
            width = round(float(lane[0].lane_width), 2)
            near.append({"width_m": width, "points": points[apart < MAP_REACH_M].round(1).tolist()})
    return near


def write_scene(scene: PlayScene, folder: Path) -> None:
    record = {
        "title": scene.title, "about": scene.about, "town": scene.town, "weather": scene.weather,
        "extra_actors": scene.extra_actors, "trajectories": [poses_as_dicts(poses) for poses in scene.trajectories],
        "roads": scene.roads,
    }  # fmt: skip
    for agent in range(AGENTS):
        with atomic_file(picture_file(scene.name, agent, folder)) as path:
            Image.fromarray(scene.first_pictures[agent]).save(path, "PNG", optimize=True)
    with atomic_file(folder / f"{scene.name}.json") as path:
        path.write_text(json.dumps(record, separators=(",", ":")))


def main() -> None:
    with tempfile.TemporaryDirectory() as logs, Simulator(Path(logs), *VIEW, threads=2) as simulator:
        simulator.server.client.set_timeout(60.0)
        networks = {}
        for town in sorted({recipe.town for recipe in RECIPES}):
            opendrive = simulator.server.client.load_world(town, True, carla.MapLayer.NONE).get_map().to_opendrive()
            networks[town] = RoadNetwork(town, opendrive), sha256_bytes(opendrive.encode())
        for recipe in sorted(RECIPES, key=lambda recipe: recipe.town):
            roads, digest = networks[recipe.town]
            row = planned_row(recipe, roads, digest)
            trajectories = both_at_rest(row["poses"].reshape(-1, AGENTS, 6).astype(float))
            scene = PlayScene(
                recipe.name, recipe.title, recipe.about, recipe.town, recipe.weather, json.loads(row["extra_actors"]),
                trajectories, lanes_near(roads, trajectories), np.empty(0),
            )  # fmt: skip
            simulator.open(scene)
            pictures = simulator.render(trajectories[:, 0])
            write_scene(PlayScene(**{**vars(scene), "first_pictures": pictures}), FOLDER)
            print(recipe.name, trajectories.shape[1], "frames", flush=True)


if __name__ == "__main__":
    main()
