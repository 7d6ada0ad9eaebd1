"""Hidden facts: hidden from the observer, in sight of the other, the same everywhere; only the fact changes."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.minicarla.towns import load_town
from tasks.planning.errors import PlanningError, TooFewSites
from tasks.planning.hidden_facts import (
    CONTAINER,
    FACT_COLORS,
    SETTINGS,
    VAN,
    FactSetting,
    Spot,
    StaticActor,
    draw_scene,
    draw_scene_at_first_possible_spot,
    is_blocked,
    is_hidden,
    share_in_sight,
    swerve,
)
from tasks.planning.motion import separation_m
from tasks.planning.plan import build_plan
from tasks.planning.preset import PlanPreset
from tasks.planning.rows import read_plan

TOWNS = ("Mini03", "Mini11")
PRESETS = (
    "shared-world-bench",
    *(f"shared-world-bench-{name}" for name in ("medium", "small", "binding", "trajectory")),
)
SPOT = Spot("here", (10.0, 20.0, 0.0, 30.0), 3.5, 3.5)


@pytest.fixture(scope="module")
def maps():
    return {town: load_town(town).opendrive for town in TOWNS}


def plan_of(name: str, maps: dict[str, str], scenes: int = 10):
    preset = PlanPreset.load(name).replace(
        towns=list(TOWNS), recordings_per_town=scenes, test_recordings_per_town=scenes
    )
    return build_plan(preset, maps)


@pytest.mark.parametrize("name", PRESETS)
def test_a_twin_differs_in_the_fact_alone(name, maps):
    rows = plan_of(name, maps).to_pylist()
    by_scene: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_scene.setdefault(row["scene_id"], {})[row["variant"]] = row
    assert Counter(row["split"] for row in rows if row["variant"] == "base") == {"train": 10, "test": 10}
    for variants in by_scene.values():
        base, twin = variants["base"], variants["fact_changed"]
        facts = [json.loads(row["fact"]) for row in (base, twin)]
        assert facts[0]["label"] != facts[1]["label"]
        assert {**facts[0], "label": 0} == {**facts[1], "label": 0}
        assert twin["frames"] == (1 if base["split"] == "train" else 9)
        poses = [np.array(row["poses"]).reshape(row["ticks"], 2, 6) for row in (base, twin)]
        assert np.array_equal(poses[0][: len(poses[1]), 0], poses[1][:, 0])  # the observer drives as before
        assert np.array_equal(poses[0][0], poses[1][0])
        actors = [json.loads(row["extra_actors"]) for row in (base, twin)]
        changed = [number for number, pair in enumerate(zip(*actors, strict=True)) if pair[0] != pair[1]]
        assert changed == (facts[0]["actors"] if facts[0]["task"] != "trajectory" else [])
        for number in changed:
            assert actors[0][number]["transform"] == actors[1][number]["transform"]
    repeats = [variants for variants in by_scene.values() if "repeat" in variants]
    assert [variants["base"]["split"] for variants in repeats] == ["test", "test"]
    assert all(variants["repeat"]["extra_actors"] == variants["base"]["extra_actors"] for variants in repeats)


def test_labels_mean_what_the_actors_wear(maps):
    for row in plan_of("shared-world-bench", maps).to_pylist():
        fact, actors = json.loads(row["fact"]), json.loads(row["extra_actors"])
        assert fact["colors"] == list(FACT_COLORS)
        assert [actors[k]["attributes"]["color"] for k in fact["actors"]] == [FACT_COLORS[fact["label"]]]
    for row in plan_of("shared-world-bench-binding", maps).to_pylist():
        fact, actors = json.loads(row["fact"]), json.loads(row["extra_actors"])
        worn = [actors[k]["attributes"]["color"] for k in fact["actors"]]
        assert worn == fact["colors"][:: -1 if fact["label"] else 1]


def test_every_fifth_binding_scene_tells_nobody(maps):
    rows = plan_of("shared-world-bench-binding", maps).to_pylist()
    informed = [json.loads(row["fact"])["informative"] for row in rows if row["variant"] == "base"]
    assert informed == [True, True, True, True, False] * 4


@pytest.mark.parametrize("name", PRESETS)
def test_cars_never_touch_each_other(name, maps):
    for row in plan_of(name, maps).to_pylist():
        poses = np.array(row["poses"]).reshape(row["ticks"], 2, 6)
        assert separation_m(poses[:, 0], poses[:, 1]).min() > 0.3


def test_a_curriculum_mixes_distances_in_training_only(maps):
    rows = [row for row in plan_of("shared-world-bench-small", maps).to_pylist() if row["variant"] == "base"]
    found = Counter((row["split"], json.loads(row["fact"])["distance"]) for row in rows)
    assert found == {("train", "large"): 4, ("train", "medium"): 3, ("train", "small"): 3, ("test", "small"): 10}


def test_the_plan_is_the_same_again_and_reads_back(maps, tmp_path):
    import pyarrow.parquet as pq

    first, second = plan_of("shared-world-bench", maps, 3), plan_of("shared-world-bench", maps, 3)
    assert first.equals(second)
    pq.write_table(first, tmp_path / "plan.parquet")
    rows = read_plan(tmp_path / "plan.parquet")
    assert rows[0].fact["task"] == "appearance"
    assert {row.poses.shape for row in rows} == {(9, 2, 6), (1, 2, 6)}


@given(st.sampled_from(sorted(key for key in SETTINGS if SETTINGS[key].count)), st.integers(0, 10_000), st.booleans())
@settings(max_examples=30, deadline=None)
def test_scenes_hide_the_fact_from_one_and_show_it_to_the_other(key, seed, informative):
    informative = informative or key[0] != "binding"
    preset = PlanPreset.load("shared-world-bench")
    scene = draw_scene(preset, SPOT, SETTINGS[key], informative, np.random.default_rng(seed))
    assert scene is not None
    eye = scene.paths[0, 0, :2]
    for car in scene.parked[0]:
        # no straight line from the agent reaches any point of the vehicle without crossing the container
        for share in np.linspace(0, 1, 9):
            for side in (car.corners()[[0, 1]], car.corners()[[2, 3]]):
                point = side[0] + share * (side[1] - side[0])
                assert crosses(eye, point, scene.screens[0])
        told = share_in_sight(scene.paths[0, 1, :2], car, scene.screens)
        assert told >= 0.6 if informative else told == 0
    for agent in range(2):  # both drive past without touching what is parked
        for thing in (*scene.screens, *scene.parked[0], *scene.parked[1]):
            low, high = thing.corners().min(0), thing.corners().max(0)
            away = np.maximum(low - scene.paths[:, agent, :2], scene.paths[:, agent, :2] - high).max(1)
            assert away.min() > 0.9


def crosses(eye: np.ndarray, point: np.ndarray, screen: StaticActor) -> bool:
    """By brute force: a thousand steps along the line."""
    low, high = screen.corners().min(0), screen.corners().max(0)
    steps = eye + np.linspace(0, 1, 1000)[:, None] * (point - eye)
    return bool(((steps > low) & (steps < high)).all(1).any())


def test_a_line_over_the_container_is_not_blocked():
    screen = StaticActor(CONTAINER, 0.0, 0.0, 90.0)
    points = np.array([[8.0, 0.0], [8.0, 0.0], [8.0, 30.0], [-2.0, 0.0]])  # behind it, twice; beside; in front of it
    heights = np.array([2.56, 8.0, 1.0, 1.0])
    assert is_blocked(np.array([-3.0, 0.0]), points, heights, screen).tolist() == [True, False, False, False]


def test_a_car_beside_the_container_is_seen():
    screen, van = StaticActor(CONTAINER, 0.0, 5.0, 90.0), StaticActor(VAN, 4.8, 5.0)
    assert is_hidden(np.array([-7.0, 0.0]), 0.0, van, screen)
    assert not is_hidden(np.array([3.0, 0.0]), 0.0, van, screen)


def test_a_setting_that_hides_nothing_is_refused():
    near = FactSetting(VAN, 1, (1.0, 1.1), (5.0, 6.0), (4.0, 5.0), 4)
    preset, rng = PlanPreset.load("shared-world-bench"), np.random.default_rng(0)
    assert draw_scene(preset, SPOT, near, True, rng) is None
    with pytest.raises(TooFewSites, match="none of 2 places hides its fact in 60 draws"):
        draw_scene_at_first_possible_spot(preset, [SPOT, SPOT], near, True, rng)


def test_a_swerve_leaves_the_lane_without_a_jump():
    path = np.stack([np.linspace(7, -3, 9), np.full(9, -3.5), np.full(9, 180.0)], 1)
    aside = swerve(path)
    assert aside[0].tolist() == path[0].tolist()
    assert aside[-1, 1] == pytest.approx(-3.5 - 2.8)
    assert np.abs(np.diff(aside[:, 1])).max() < 1.2
    assert np.abs((aside[:, 2] - 180 + 180) % 360 - 180).max() < 45


def test_what_does_not_fit_is_refused(maps):
    with pytest.raises(PlanningError, match=r"fact_task is 'binding' with .* only appearance has distances"):
        PlanPreset.load("shared-world-bench").replace(fact_task="binding", fact_distance="small")
    with pytest.raises(PlanningError, match="fact_task is 'smell'"):
        PlanPreset.load("shared-world-bench").replace(fact_task="smell")
