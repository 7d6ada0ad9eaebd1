"""The plan: six ways to meet, a balanced square, cars that never touch, the same everywhere."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenariogeneration import xodr

from infra.minicarla.towns import load_town, town_names
from infra.storage import canonical_json, sha256_bytes
from tasks.planning import hidden_facts
from tasks.planning.check_opendrive import check_files
from tasks.planning.errors import PlanningError
from tasks.planning.motion import HALF_LENGTH_M, HALF_WIDTH_M, MARGIN_M, closest_approach, separation_m
from tasks.planning.plan import build_plan, make_plan, plan_data_set
from tasks.planning.preset import TYPES, PlanPreset
from tasks.planning.roads import RoadNetwork, signed_angle_deg
from tasks.planning.rows import read_plan
from tasks.planning.sites import find_sites
from tasks.planning.spares import count_without_spare, read_spares, stand_ins
from tasks.planning.summary import lacking, lacking_spares
from tasks.planning.town import scheduled_type_and_weather
from tasks.planning.weather import WEATHERS


@pytest.fixture(scope="session")
def demo():
    """The demo's plan, its rows with poses, and its spare rows with poses."""
    preset = PlanPreset.load("demo")
    maps = {town: load_town(town).opendrive for town in preset.towns}
    plan, spares, _ = plan_data_set(preset, maps)
    return plan, with_poses(plan), with_poses(spares)


def with_poses(plan):
    return [row | {"poses": np.array(row["poses"]).reshape(-1, 2, 6)} for row in plan.to_pylist()]


def test_the_demos_recordings_stay_those_that_were_planned_before(demo):
    """Recordings are known by their ids: a changed one is recorded again."""
    ids = "".join(row["recording_id"] for row in demo[1])
    assert sha256_bytes(ids.encode()).startswith("d3f7f874e9cf707b")
    shown = [{name: value for name, value in row.items() if name != "poses"} for row in demo[1]]
    assert sha256_bytes(canonical_json(shown).encode()).startswith("f9a4c13931032487")


def test_demo_is_a_latin_square(demo):
    _, rows, _ = demo
    assert len(rows) == 36
    assert set(Counter((row["trajectory_type"], row["weather"]) for row in rows).values()) == {2}
    for town in town_names():
        mine = [row for row in rows if row["town"] == town]
        assert len({row["trajectory_type"] for row in mine}) == len({row["weather"] for row in mine}) == 3
    held_out = [row for row in rows if row["split"] == "test"]
    assert {row["trajectory_type"] for row in held_out} == set(PlanPreset.load("demo").trajectory_types)
    assert Counter(row["split"] for row in rows) == {"train": 27, "val": 3, "test": 6}


@given(st.integers(1, 4), st.sampled_from([6, 12, 24]))
@settings(max_examples=12, deadline=None)
def test_more_recordings_a_town_stay_balanced(thirds, towns):
    preset = PlanPreset.load("demo").replace(recordings_per_town=3 * thirds)
    counts = Counter(
        scheduled_type_and_weather(preset, town, number) for town in range(towns) for number in range(3 * thirds)
    )
    assert len(counts) == 18
    assert max(counts.values()) == min(counts.values())


def test_cars_never_touch_and_meet_in_the_recording(demo):
    for row in demo[1]:
        poses = row["poses"]
        assert separation_m(poses[:, 0], poses[:, 1]).min() >= MARGIN_M - 1e-4
        tick, distance = closest_approach(poses)
        assert distance < 20
        if row["trajectory_type"] in ("straight_meeting", "crossing", "turning_meeting"):
            assert 75 < tick < 175


def test_cars_drive_as_cars_do(demo):
    for row in demo[1]:
        steps = np.diff(row["poses"][..., :2], axis=0)
        speed = np.linalg.norm(steps, axis=-1) * 30
        assert 1.0 < speed.min() <= speed.max() < 10.0
        yaw = np.unwrap(np.radians(row["poses"][..., 4]), axis=0)
        fifth = 6  # ticks in a fifth of a second
        assert np.abs((speed[fifth:] - speed[:-fifth]) * 5).max() < 4.0, row["trajectory_type"]
        turning = np.abs((yaw[fifth:] - yaw[:-fifth]) * 5)
        assert (turning[:-1] * speed[fifth:]).max() < 4.0, row["trajectory_type"]
        along = np.arctan2(steps[..., 1], steps[..., 0])
        off = np.abs((along - yaw[:-1] + np.pi) % (2 * np.pi) - np.pi)
        assert np.degrees(off.max()) < 6


def headings(row, tick):
    return row["poses"][tick, :, 4]


def test_every_type_is_what_the_figure_shows(demo):
    for row in demo[1]:
        kind, start, end = row["trajectory_type"], headings(row, 0), headings(row, -1)
        bends = [abs(signed_angle_deg(a, b)) for a, b in zip(start, end, strict=True)]
        between = abs(signed_angle_deg(*start)), abs(signed_angle_deg(*end))
        if kind == "straight_meeting":
            assert max(bends) < 30
            assert min(between) > 140
        elif kind == "following":
            assert max(between) < 50
        elif kind == "crossing":
            assert max(bends) < 45
            assert 40 < between[0] < 140
        elif kind == "turning_meeting":
            assert between[0] > 110
            assert bends[1] > 30
        elif kind == "merging":
            assert between[0] > 25
            assert between[1] < 60
        elif kind == "diverging":
            assert between[0] < 40
            assert between[1] > 25


def test_a_plan_is_the_same_again_and_with_or_without_spares(demo):
    preset = PlanPreset.load("demo").replace(towns=["Mini04", "Mini11"])
    maps = {town: load_town(town).opendrive for town in preset.towns}
    plan, spares, _ = plan_data_set(preset, maps)
    again, fewer, _ = plan_data_set(preset.replace(spare_share=0), maps)
    assert plan.equals(again)
    assert (spares.num_rows, fewer.num_rows) == (6, 0)
    mine = [row["recording_id"] for row in demo[2] if row["town"] in preset.towns]
    assert len(mine) == 6
    assert len({row["recording_id"] for row in demo[1]}) == 36


def test_spares_are_further_scenes_of_each_town_and_type(demo):
    _, rows, spares = demo
    cells = Counter((row["town"], row["trajectory_type"]) for row in spares)
    assert cells == Counter((row["town"], row["trajectory_type"]) for row in rows)
    assert not {row["recording_id"] for row in rows} & {row["recording_id"] for row in spares}
    sites = [(row["town"], row["trajectory_type"], row["site"]) for row in (*rows, *spares)]
    assert len(set(sites)) == len(sites)
    for row in spares:
        assert separation_m(row["poses"][:, 0], row["poses"][:, 1]).min() >= MARGIN_M - 1e-4
        assert closest_approach(row["poses"])[1] < 20
    assert set(Counter(row["weather"] for row in spares).values()) == {12}


def test_a_town_without_further_sites_has_fewer_spares_and_says_so():
    preset = PlanPreset.load("demo").replace(towns=["Mini03"], recordings_per_town=400, short_towns="less")
    plan, spares, cells = plan_data_set(preset, {"Mini03": load_town("Mini03").opendrive})
    fewer = lacking_spares(preset, cells)["Mini03"]
    full = {kind for kind, count in lacking(preset, cells)["Mini03"].items() if count}
    assert set(fewer) >= full  # what has no site for its share has none to spare
    planned = Counter(row["trajectory_type"] for row in plan.to_pylist())
    spare = Counter(row["trajectory_type"] for row in spares.to_pylist())
    assert all(spare[kind] + fewer.get(kind, 0) == math.ceil(count / 10) for kind, count in planned.items())


def test_another_seed_or_repeat_is_another_recording():
    preset = PlanPreset.load("demo").replace(towns=["Mini04"], recordings_per_town=12, repeats=3)
    maps = {"Mini04": load_town("Mini04").opendrive}
    rows = build_plan(preset, maps).to_pylist()
    assert len({row["recording_id"] for row in rows}) == 12
    other = build_plan(preset.replace(seed=1), maps).to_pylist()
    assert not {row["recording_id"] for row in rows} & {row["recording_id"] for row in other}
    sites = Counter((row["trajectory_type"], row["site"]) for row in rows)
    assert max(sites.values()) <= 3  # a site never repeats beyond its repeats


def test_other_trajectories_share_the_scene_and_agent_0():
    preset = PlanPreset.load("demo").replace(towns=["Mini11", "Mini12"], other_trajectories=True)
    rows = build_plan(preset, {town: load_town(town).opendrive for town in preset.towns}).to_pylist()
    scenes: dict = {}
    for row in rows:
        scenes.setdefault(row["scene_id"], {})[row["variant"]] = np.array(row["poses"]).reshape(-1, 2, 6)
    assert len(scenes) == 6
    assert sum("other_trajectory" in scene for scene in scenes.values()) >= 5  # there may be no other way to meet
    for scene in scenes.values():
        assert set(scene) <= {"base", "other_trajectory"}
        if "other_trajectory" in scene:
            assert np.array_equal(scene["base"][:, 0], scene["other_trajectory"][:, 0])
            assert not np.array_equal(scene["base"][:, 1], scene["other_trajectory"][:, 1])


@pytest.mark.parametrize("town", town_names())
def test_every_town_hosts_every_type(town):
    roads = RoadNetwork(town, load_town(town).opendrive)
    assert all(find_sites(roads, kind) for kind in TYPES)


def test_places_of_large_towns_lie_farther_apart(monkeypatch):
    roads = RoadNetwork("Mini04", load_town("Mini04").opendrive)
    every_third = find_sites(roads, "following")
    monkeypatch.setattr("tasks.planning.sites.MOST_PLACES", 40)
    fewer = find_sites(roads, "following")
    assert 20 < len(fewer) <= 40 < len(every_third)


def test_a_town_short_of_sites_is_refused_or_told():
    preset = PlanPreset.load("demo").replace(towns=["Mini03"], recordings_per_town=400)
    maps = {"Mini03": load_town("Mini03").opendrive}
    with pytest.raises(PlanningError, match=r"Mini03 has .* sites of type .* too few for 400"):
        build_plan(preset, maps)
    less = preset.replace(short_towns="less")
    plan, _, cells = plan_data_set(less, maps)
    assert plan.num_rows + sum(lacking(less, cells)["Mini03"].values()) == 400
    used = Counter((row["trajectory_type"], row["site"]) for row in plan.to_pylist())
    assert set(used.values()) == {1}  # a site never repeats silently


@given(
    st.tuples(st.floats(-20, 20), st.floats(-20, 20), st.floats(-180, 180)),
    st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-180, 180)),
)
@settings(max_examples=150, deadline=None)
def test_gap_agrees_with_sampled_boxes(first, offset):
    """Boxes overlap exactly when a corner-to-corner sample of one lies in the other."""
    poses = np.zeros((1, 2, 6))
    poses[0, 0, [0, 1, 4]] = first
    poses[0, 1, [0, 1, 4]] = np.add(first, offset)
    separation = separation_m(poses[:, 0], poses[:, 1])[0]
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 81), np.linspace(-1, 1, 81)), -1).reshape(-1, 2)
    inside = False
    for a, b in ((0, 1), (1, 0)):
        yaw = np.radians(poses[0, [a, b], 4])
        spin = [np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in yaw]
        points = (grid * (HALF_LENGTH_M, HALF_WIDTH_M)) @ spin[0].T + poses[0, a, :2] - poses[0, b, :2]
        local = np.abs(points @ spin[1])
        inside |= bool(((local[:, 0] <= HALF_LENGTH_M) & (local[:, 1] <= HALF_WIDTH_M)).any())
    if abs(separation) > 0.1:
        assert inside == (separation < 0)


class Server:
    """Stands in for a CARLA server: the two calls that a survey makes."""

    def __init__(self):
        self.client = self

    def get_available_maps(self):
        return [f"/Game/Carla/Maps/{town}" for town in town_names()]

    def load_world(self, town, reset, layers):
        return SimpleNamespace(get_map=lambda: SimpleNamespace(to_opendrive=lambda: load_town(town).opendrive))


def factory():
    return contextlib.nullcontext(Server())


def refuse():
    raise AssertionError("no server is needed")


def test_make_plan_writes_once_and_refuses_another(tmp_path):
    preset = PlanPreset.load("tiny")
    assert make_plan(tmp_path, preset, factory)
    assert not make_plan(tmp_path, preset, refuse)
    rows = read_plan(tmp_path / "plan.parquet")
    assert [row.town for row in rows] == ["Mini01", "Mini02"]
    assert rows[0].poses.shape == (60, 2, 6)
    assert rows[1].record_ground_truth
    assert [row.town for row in read_spares(tmp_path)] == ["Mini01", "Mini02"]
    assert (tmp_path / "maps" / "Mini01.xodr").read_text() == load_town("Mini01").opendrive
    assert json.loads((tmp_path / "plan.json").read_text())["preset"]["name"] == "tiny"
    with pytest.raises(PlanningError, match=r"another plan \(its seed differ"):
        make_plan(tmp_path, preset.replace(seed=7), refuse)


def test_hidden_facts_of_other_settings_are_another_plan(tmp_path, monkeypatch):
    preset = PlanPreset.load("shared-world-bench-medium").replace(
        towns=["Mini01", "Mini11"], recordings_per_town=2, test_recordings_per_town=1
    )
    assert make_plan(tmp_path, preset, factory)
    assert not make_plan(tmp_path, preset, refuse)
    large = hidden_facts.SETTINGS["appearance", "large"]  # of every other training scene, of no test scene
    nearer = dataclasses.replace(large, beyond_m=(3.9, 4.5))
    monkeypatch.setitem(hidden_facts.SETTINGS, ("appearance", "large"), nearer)
    before = (tmp_path / "plan.parquet").read_bytes()
    with pytest.raises(PlanningError, match=f"{tmp_path} was planned by another version.*move the folder away"):
        make_plan(tmp_path, preset, refuse)
    assert (tmp_path / "plan.parquet").read_bytes() == before


def test_unknown_preset_and_town_are_named(tmp_path):
    with pytest.raises(PlanningError, match=r"'demmo'.*demo, paper, .*tiny"):
        PlanPreset.load("demmo")
    preset = PlanPreset.load("tiny").replace(towns=["Atlantis"])
    with pytest.raises(PlanningError, match=r"no town 'Atlantis'.*Mini01"):
        make_plan(tmp_path, preset, factory)


def test_a_town_that_cannot_host_a_type_is_named():
    road = xodr.create_road(xodr.Line(300), 1, 1, 1)
    drawing = xodr.OpenDrive("straight")
    drawing.add_road(road)
    drawing.adjust_roads_and_lanes()
    text = ElementTree.tostring(drawing.get_element(), encoding="unicode")
    preset = PlanPreset.load("tiny").replace(towns=["Line"], trajectory_types=["crossing"])
    with pytest.raises(PlanningError, match="town Line cannot host the trajectory type 'crossing'"):
        build_plan(preset, {"Line": text})


def test_a_broken_map_is_named_even_if_it_crashes_carla(tmp_path):
    path = tmp_path / "Broken.xodr"
    path.write_text(
        load_town("Mini01").opendrive.replace("<planView>", "<planview>").replace("</planView>", "</planview>")
    )
    with pytest.raises(PlanningError, match=r"Broken.xodr cannot be used"):
        check_files([path])


def test_weathers_are_carlas():
    import carla

    assert list(WEATHERS) == ["clear_noon", "wet_overcast", "foggy_sunset"]
    for numbers in WEATHERS.values():
        weather = carla.WeatherParameters(**numbers)
        assert abs(weather.sun_altitude_angle - numbers["sun_altitude_angle"]) < 1e-4


def drafts(text: str) -> list[dict]:
    """Rows from e.g. 'a1 a2* b3': town, number of the scene; a star is its second trajectory."""
    return [
        {"recording_id": word, "scene_id": word.rstrip("*"), "town": word[0], "trajectory_type": "crossing",
         "variant": "other_trajectory" if word.endswith("*") else "base",
         "split": "test" if word[0] == "b" else "train"}
        for word in text.split()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "expected", "lacking"),
    [
        ("", "", {}),
        ("a1", "a7 a7*", {}),
        ("a1*", "", {}),  # the scene is there
        ("b3", "b8", {}),
        ("a1 a2", "a7 a7* a9", {}),
        ("a1 a7", "a9", {}),
        ("a1 a7*", "a7", {}),
        ("b3 b8", "", {("b", "crossing"): 1}),
        ("a1 a2 a7", "a9", {("a", "crossing"): 1}),
        ("c4", "a7 a7*", {}),  # another town of its split helps out
        ("a1 c4", "a7 a7* a9", {}),
        ("a1 a2 c4", "a7 a7* a9", {("c", "crossing"): 1}),  # its own losses come first
    ],
)
def test_spares_stand_in_scene_by_scene(lost, expected, lacking):
    plan, spares = drafts("a1 a1* a2 b3 c4"), drafts("a7 a7* b8 a9")
    assert stand_ins(plan, spares, lost.split()) == expected.split()
    assert count_without_spare(plan, spares, lost.split()) == lacking
