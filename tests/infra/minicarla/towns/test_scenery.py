"""The scenery: roads where the client's map has them, nothing on the lanes, deterministic, cheap."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from infra.minicarla.scenery import Ground, Label, Scenery
from infra.minicarla.towns import build_scenery, furniture, load_town, town_names
from infra.minicarla.towns.road_network import Strip, driving, read_road_network

SHARED = Path(__file__).resolve().parents[4].parent / "shared"
CLEARANCE_M = 1.5


@pytest.fixture(scope="module")
def built() -> dict[str, tuple[Scenery, list[Strip]]]:
    return {
        name: (build_scenery(load_town(name)), read_road_network(load_town(name).opendrive)) for name in town_names()
    }


def digest_of(scenery: Scenery) -> str:
    sha = hashlib.sha256()
    for f in fields(scenery):
        value = getattr(scenery, f.name)
        sha.update(np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return sha.hexdigest()


def ground_at(scenery: Scenery, xy: np.ndarray) -> np.ndarray:
    index = np.floor((xy - np.array(scenery.origin_xy)) / scenery.texel_m).astype(int)
    return scenery.ground[index[:, 1], index[:, 0]]


def lane_points(strips: list[Strip], step: int = 1) -> np.ndarray:
    """Points across all driving lanes, about every 0.9 m."""
    across = [s.inner + u * (s.outer - s.inner) for s in driving(strips) for u in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return np.concatenate(across)[::step]


def box_points(scenery: Scenery, k: int) -> np.ndarray:
    """Points along the outline of a box."""
    half, yaw = scenery.box_half[k], np.radians(scenery.box_yaw_deg[k])
    n = max(3, int(half[:2].max() / 0.25))
    t = np.linspace(-1, 1, n)
    ring = np.concatenate([np.stack([t, side * np.ones(n)], 1) for side in (-1, 1)] + [
        np.stack([side * np.ones(n), t], 1) for side in (-1, 1)
    ])  # fmt: skip
    local = ring * half[:2]
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    return scenery.box_center[k, :2] + local @ turn.T


def upright(scenery: Scenery) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres [N, 2], half sizes [N, 2] and yaws [N] of what stands lower than a lorry is high: boxes and trunks."""
    low = scenery.box_center[:, 2] - scenery.box_half[:, 2] < 4.5
    trunk = np.repeat(scenery.tree_trunk[:, 1:], 2, 1)
    return (
        np.concatenate([scenery.box_center[low, :2], scenery.tree_xy]),
        np.concatenate([scenery.box_half[low, :2], trunk]),
        np.concatenate([np.radians(scenery.box_yaw_deg[low]), np.zeros(len(trunk))]),
    )


def apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two convex polygons [N, 2] have no point in common: some edge has all of the other beyond it."""
    for polygon in (one, other):
        edges = np.roll(polygon, -1, 0) - polygon
        normals = np.stack([-edges[:, 1], edges[:, 0]], 1)[np.hypot(*edges.T) > 1e-6]
        a, b = one @ normals.T, other @ normals.T
        if ((a.max(0) <= b.min(0)) | (b.max(0) <= a.min(0))).any():
            return True
    return False


def standing_on_lanes(scenery: Scenery, strips: list[Strip]) -> list[list[float]]:
    """Places of what stands within the width of a driving lane, junctions included."""
    lanes = np.concatenate(
        [np.stack([s.inner[:-1], s.inner[1:], s.outer[1:], s.outer[:-1]], 1) for s in driving(strips)]
    )
    middles = lanes.mean(1)
    reach = float(np.linalg.norm(lanes - middles[:, None], axis=2).max())
    near = cKDTree(middles)
    found = []
    for centre, half, yaw in zip(*upright(scenery), strict=True):
        axes = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
        corners = centre + (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half) @ axes
        if not all(apart(lanes[k], corners) for k in near.query_ball_point(centre, reach + float(np.hypot(*half)))):
            found.append([*map(float, centre), *map(float, half)])
    return found


def test_arrays_have_the_agreed_types(built: dict[str, tuple[Scenery, list[Strip]]]) -> None:
    for name, (s, _) in built.items():
        assert s.ground.dtype == np.uint8
        assert s.ground.ndim == 2
        assert s.ground.nbytes <= 120 * 10**6
        assert s.texel_m == 0.05
        n, t = len(s.box_half), len(s.tree_xy)
        shapes = {
            "box_center": (n, 3), "box_half": (n, 3), "box_yaw_deg": (n,), "box_rgb": (n, 3), "box_roof_rgb": (n, 3),
            "tree_xy": (t, 2), "tree_trunk": (t, 2), "tree_canopy": (t, 2), "tree_rgb": (t, 3),
        }  # fmt: skip
        for field, shape in shapes.items():
            array = getattr(s, field)
            assert array.dtype == np.float32, (name, field)
            assert array.shape == shape, (name, field)
            assert np.isfinite(array).all(), (name, field)
        assert s.box_facade.dtype == np.int32
        assert s.box_label.dtype == np.uint8
        assert s.box_rgb.min() >= 0
        assert s.box_rgb.max() <= 1
        assert (s.box_half > 0).all()
        assert set(np.unique(s.box_label)) <= {int(v) for v in Label}


def test_towns_are_built_up_and_differ(built: dict[str, tuple[Scenery, list[Strip]]]) -> None:
    looks = set()
    for name, (s, _) in built.items():
        houses = s.box_label == Label.BUILDINGS
        assert houses.sum() >= 60, name
        assert len(s.tree_xy) >= 100, name
        tall = float((s.box_center[houses, 2] + s.box_half[houses, 2]).max())
        colour = tuple(np.round(s.box_rgb[houses].mean(0), 2))
        looks.add((round(tall / 3), colour))
        assert np.isin([Ground.ROAD, Ground.LINE_WHITE], np.unique(s.ground)).all(), name
    assert len(looks) == 12


def test_lanes_of_the_clients_map_are_paved(built: dict[str, tuple[Scenery, list[Strip]]]) -> None:
    code = """
import carla, json, sys
for text in json.load(sys.stdin):
    ways = carla.Map("probe", text).generate_waypoints(1.0)
    print(json.dumps([(w.transform.location.x, w.transform.location.y) for w in ways]))
"""
    texts = [load_town(name).opendrive for name in built]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    rows = done.stdout.splitlines()
    assert len(rows) == len(built)
    for (name, (scenery, _)), row in zip(built.items(), rows, strict=True):
        kinds = ground_at(scenery, np.array(json.loads(row)))
        on_road = np.isin(kinds, [Ground.ROAD, Ground.LINE_WHITE, Ground.LINE_YELLOW])
        # The last waypoint of a dead end lies on the border of the paving.
        assert on_road.mean() > 0.998, name


def test_junctions_have_no_unpaved_islands(built: dict[str, tuple[Scenery, list[Strip]]]) -> None:
    for name, (scenery, strips) in built.items():
        ids = sorted({s.junction for s in strips if s.junction >= 0})
        for junction in ids:
            points = np.concatenate([s.centre for s in driving(strips) if s.junction == junction])
            kind = ground_at(scenery, points.mean(0)[None])[0]
            assert kind in (Ground.ROAD, Ground.LINE_WHITE), (name, junction)


def test_nothing_stands_on_or_beside_a_lane(built: dict[str, tuple[Scenery, list[Strip]]]) -> None:
    for name, (scenery, strips) in built.items():
        lanes = cKDTree(lane_points(strips))
        spacing = 0.5  # the lane points lie up to 1 m apart along the lane: half a step of slack
        near, _ = lanes.query(scenery.tree_xy)
        trunk = scenery.tree_trunk[:, 1]
        assert (near - trunk).min() > CLEARANCE_M - spacing * 0.2, name
        low = scenery.box_center[:, 2] - scenery.box_half[:, 2] < 4.0
        for k in np.flatnonzero(low):
            if scenery.box_label[k] == Label.STATIC and scenery.box_rgb[k].max() >= 0.8:
                continue  # the barriers stand behind dead ends, tested below
            gap, _ = lanes.query(box_points(scenery, k))
            assert gap.min() > CLEARANCE_M - spacing * 0.2, (name, k, Label(scenery.box_label[k]))


def test_nothing_stands_on_any_lane(built: dict[str, tuple[Scenery, list[Strip]]]) -> None:
    for name, (scenery, strips) in built.items():
        assert standing_on_lanes(scenery, strips) == [], name


def test_a_barrier_on_a_lane_would_be_found(built: dict[str, tuple[Scenery, list[Strip]]]) -> None:
    scenery, strips = built["Mini02"]
    lane = next(s for s in driving(strips) if s.junction >= 0)
    barrier = replace(scenery, box_center=scenery.box_center.copy())
    barrier.box_center[0, :2] = lane.outer[len(lane.outer) // 2]
    assert len(standing_on_lanes(barrier, strips)) == 1


def test_barriers_stand_behind_dead_ends(built: dict[str, tuple[Scenery, list[Strip]]]) -> None:
    for name, (scenery, strips) in built.items():
        lanes = cKDTree(lane_points(strips))
        for k in np.flatnonzero(scenery.box_label == Label.STATIC):
            gap, _ = lanes.query(box_points(scenery, k))
            assert gap.min() > CLEARANCE_M, (name, k)


def test_lines_are_painted_by_type(built: dict[str, tuple[Scenery, list[Strip]]]) -> None:
    scenery, strips = built["Mini04"]
    assert (scenery.ground == Ground.LINE_YELLOW).sum() > 1000
    broken = [(s, m) for s in strips if s.lane == 0 for m in s.marks if m.kind == "broken" and m.end_m - m.start_m > 30]
    assert broken
    for strip, mark in broken:
        s = np.arange(mark.start_m, mark.end_m, 0.1)
        xy = np.stack([np.interp(s, strip.s, strip.outer[:, k]) for k in (0, 1)], 1)
        share = (ground_at(scenery, xy) == Ground.LINE_YELLOW).mean()
        assert 0.3 < share < 0.55
    solid = [(s, m) for s in strips if s.lane == 0 for m in s.marks if m.kind == "solid" and m.end_m - m.start_m > 10]
    for strip, mark in solid:
        s = np.arange(mark.start_m + 6, mark.end_m - 6, 0.1)
        xy = np.stack([np.interp(s, strip.s, strip.outer[:, k]) for k in (0, 1)], 1)
        assert (ground_at(scenery, xy) == Ground.LINE_YELLOW).mean() > 0.9


COST = """
import hashlib, json, resource, sys, time
from dataclasses import fields
import numpy as np
from infra.minicarla.towns import build_scenery, load_town, opendrive_writer
rows = []
for name, maps in json.loads(sys.argv[1]):
    start = time.process_time(); town = load_town(name, maps); loading = time.process_time() - start
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time(); scenery = build_scenery(town); building = time.process_time() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    sha = hashlib.sha256()
    for f in fields(scenery):
        v = getattr(scenery, f.name)
        sha.update(np.ascontiguousarray(v).tobytes() if isinstance(v, np.ndarray) else repr(v).encode())
    rows.append([name, loading, building, peak, scenery.ground.nbytes, sha.hexdigest()])
    if len(sys.argv) > 2:
        np.savez(sys.argv[2], **{k: v for k, v in vars(scenery).items() if k.startswith(("box", "tree"))})
print(json.dumps(rows))
"""


def measured(towns: list[tuple[str, str | None]], *save_to: Path) -> list[list]:
    """Name, seconds to load and to build, MiB at the peak, bytes of the ground and hash of each town."""
    command = [sys.executable, "-c", COST, json.dumps(towns), *map(str, save_to)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_cost_and_determinism_of_the_largest_town(built: dict[str, tuple[Scenery, list[Strip]]]) -> None:
    for name in ("Mini05", "Mini10"):
        (_, loading, building, peak_mib, _, sha) = measured([(name, None)])[0]
        assert loading < 1.0
        assert building < 4.0
        assert peak_mib < 300
        assert sha == digest_of(built[name][0]), "another process built another town"


DEAD_ENDS = {"Town01_2020": 0, "Town03_2019": 1, "Town05_2019": 0, "Town07_2020": 0, "Town10HD_2020": 0}
"""Ends of roads with driving lanes that nothing is linked to. Lanes also end inside junctions, and where they merge."""


@pytest.mark.parametrize("name", DEAD_ENDS)
def test_real_carla_maps_get_scenery_beside_their_lanes(name: str, tmp_path: Path) -> None:
    maps = SHARED / "maps"
    if not (maps / f"{name}.xodr").exists():
        pytest.skip(f"no {maps / name}.xodr")
    (_, _, building, peak_mib, ground_bytes, _) = measured([(name, str(maps))], tmp_path / "scenery.npz")[0]
    assert building < 8.0
    assert peak_mib < 300
    assert ground_bytes <= 120 * 10**6
    strips = read_road_network(load_town(name, maps).opendrive)
    assert len(furniture.dead_ends(strips)) == DEAD_ENDS[name]
    with np.load(tmp_path / "scenery.npz") as arrays:
        scenery = Scenery(ground=np.zeros((0, 0), np.uint8), origin_xy=(0.0, 0.0), texel_m=1.0, **arrays)
    assert standing_on_lanes(scenery, strips) == []
