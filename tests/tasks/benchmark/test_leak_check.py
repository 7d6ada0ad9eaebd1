"""The leak check: silent on scenes that hide their fact, and it finds every way of giving it away."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from infra.carla_servers import CarlaServer, SimulatorSpec
from model.presets import Preset
from tasks.benchmark import leak_check
from tasks.benchmark import task as benchmark_task
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.leak_check import Given, check_leaks, leak_of, read_given, tells
from tasks.benchmark.scenes import read_scenes
from tasks.evaluation.scoring.windows import Windows
from tasks.planning.plan import make_plan
from tasks.planning.preset import PlanPreset
from tasks.recording.pool import record_plan
from tasks.sharding.reader import ClipIndex, read_pair
from tasks.sharding.shards import write_shards
from tests.synthetic_dataset import write_dataset

SCENES = {"44056cbe6e7af6b4", "64c48c7054b681dc", "c659c610ba4c7058"}
"""Of towns Mini01 and Mini11."""
SPLITS = ["train", "val", "test"]
"""That have instance ids: all, as on CARLA. The embedded simulator's training clips do without."""


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> Path:
    """One training and two test scenes with twins, repeats and instance ids, recorded by the real client."""
    folder = tmp_path_factory.mktemp("bench") / "shared-world-bench"
    folder.mkdir()
    preset = PlanPreset.load("shared-world-bench").replace(
        towns=["Mini01", "Mini11"], recordings_per_town=1, test_recordings_per_town=2, ground_truth_splits=SPLITS
    )
    spec = SimulatorSpec()
    make_plan(folder, preset, lambda: CarlaServer(spec, folder / "logs", "survey"))
    done = record_plan(folder, spec, servers=1)
    assert (done.recorded, done.rejected, done.faults) == (8, {}, {})
    write_shards(folder)
    return folder


def test_recorded_scenes_hide_their_facts(recorded):
    found = check_leaks(recorded)
    assert (found.scenes, found.leaking, found.untold, found.repeats, found.tolerance) == (3, {}, 0, 2, 0.0)
    assert (found.masked, found.unpaired, found.asked) == (3, 0, 3)
    assert "exact" in str(found)
    assert check_leaks(recorded, exact=True) == found


def test_scenes_have_the_ids_that_others_report(recorded):
    assert {row["scene_id"] for row in ClipIndex(recorded).rows} == SCENES


def test_without_instance_ids_the_check_must_be_exact(recorded, monkeypatch):
    def read(index, row):
        given = read_given(index, row)
        return replace(given, fact_pixels=None) if row["split"] == "train" else given

    monkeypatch.setattr(leak_check, "read_given", read)
    assert check_leaks(recorded, exact=True).masked == 2
    with pytest.raises(BenchmarkError, match=r"1 of 3 scenes of .* have no instance ids"):
        check_leaks(recorded)


def read_with_one_grey_level_more(variant: str):
    """Return `read_given` that changes the observer's first frame in the recordings of a variant."""

    def read(index, row):
        given = read_given(index, row)
        first = given.first.copy()
        first[0, 5, 7, 1] ^= row["variant"] == variant
        return replace(given, first=first)

    return read


def test_a_data_set_that_leaks_ends_the_flow(recorded, monkeypatch):
    monkeypatch.setattr(leak_check, "read_given", read_with_one_grey_level_more("fact_changed"))
    found = check_leaks(recorded)
    assert found.leaking.keys() == SCENES
    assert all("first frames differ by 0.000" in reason for reason in found.leaking.values())
    monkeypatch.setattr(benchmark_task, "check_leaks", lambda *given, **named: found)
    monkeypatch.setattr(benchmark_task, "FlowProgress", lambda *given: None)
    monkeypatch.setattr(benchmark_task, "get_run_logger", logging.getLogger)
    with pytest.raises(BenchmarkError, match=r"3 of 3 scenes of bench give their fact away, the first is .*Mini"):
        benchmark_task.check_hidden_facts.fn("bench", exact=True)


def test_what_two_recordings_differ_by_is_let_pass_but_not_where_they_must_be_equal(recorded, monkeypatch):
    monkeypatch.setattr(leak_check, "read_given", read_with_one_grey_level_more("repeat"))
    found = check_leaks(recorded)
    assert found.tolerance == pytest.approx(leak_check.MARGIN / (32 * 48 * 3))
    assert "2 times what 2 repeats differ by" in str(found)
    with pytest.raises(BenchmarkError, match=r"two recordings of one scene .* on a simulator that repeats itself"):
        check_leaks(recorded, exact=True)


def test_the_repeat_that_differs_most_says_what_passes(recorded, monkeypatch):
    scenes = sorted({row["scene_id"] for row in ClipIndex(recorded).rows if row["variant"] == "repeat"})

    def read(index, row):
        given = read_given(index, row)
        first = given.first.copy()
        if row["variant"] == "repeat":
            first[0, 5, 7, 1] ^= 1 + scenes.index(row["scene_id"])  # by 1, and by 2 or more
        return replace(given, first=first)

    monkeypatch.setattr(leak_check, "read_given", read)
    assert check_leaks(recorded).tolerance == pytest.approx(leak_check.MARGIN * 2 / (32 * 48 * 3))


def test_a_scene_without_its_twin_is_counted(recorded, monkeypatch):
    rows = [row for row in ClipIndex(recorded).rows if (row["split"], row["variant"]) != ("train", "fact_changed")]
    monkeypatch.setattr(leak_check, "ClipIndex", lambda folder: SimpleNamespace(rows=rows, read=ClipIndex(folder).read))
    found = check_leaks(recorded)
    assert (found.scenes, found.unpaired) == (2, 1)
    assert found.figures()["unpaired_scenes"] == 1


def test_twins_differ_in_nothing_but_the_fact(recorded):
    index = ClipIndex(recorded)
    rows = {(row["scene_id"], row["variant"]): row for row in index.split("test")}
    for scene in {row["scene_id"] for row in index.split("test")}:
        base, twin, repeat = (
            read_pair(row["key"], index.read(row))
            for row in (rows[scene, name] for name in ("base", "fact_changed", "repeat"))
        )
        assert np.array_equal(base.videos[0, 0], twin.videos[0, 0])
        assert np.array_equal(base.videos[:, :1], repeat.videos)
        assert not np.array_equal(base.videos[1, 0], twin.videos[1, 0])
        assert not np.array_equal(base.videos[0, -1], twin.videos[0, -1])
        assert base.instance is not None
        assert np.array_equal(base.instance, twin.instance)
        fact = base.meta["fact"]
        shown = base.instance[0] == 3 + fact["actors"][0]
        assert not shown[0].any()
        assert shown.sum() / 64 > 4  # latent cells
        # the mask is where the colour shows: outside it and its soft edge the recordings agree closely
        far = np.abs(base.videos[0].astype(int) - twin.videos[0]).max(-1) > 60
        assert far.sum() > 20
        assert shown[far].mean() > 0.8
        assert base.meta["scores"]["fact_pixels_later"] == shown.sum()
        assert base.meta["scores"]["fact_pixels_told"] >= 3


def test_training_twins_are_one_frame_and_are_not_learned_from(recorded):
    index = ClipIndex(recorded)
    frames = {row["variant"]: read_pair(row["key"], index.read(row)).videos.shape[1] for row in index.split("train")}
    assert frames == {"base": 9, "fact_changed": 1}
    assert [row["variant"] for row in index.whole("train")] == ["base"]
    assert sorted(row["variant"] for row in index.whole("test")) == ["base"] * 2 + ["fact_changed"] * 2
    assert len(Windows(recorded, index.whole("test"), Preset.load("bench"))) == 4


def test_the_scenes_are_read_as_the_model_sees_them(recorded):
    scenes = read_scenes(recorded, Preset.load("bench"))
    assert len(scenes) == 2
    assert float(scenes.cells.min()) > 4
    assert bool((scenes.labels[:, 0] != scenes.labels[:, 1]).all())


@pytest.fixture(scope="module")
def pair(recorded) -> tuple[Given, Given]:
    index = ClipIndex(recorded)
    scene = index.split("test")[0]["scene_id"]
    rows = {row["variant"]: row for row in index.rows if row["scene_id"] == scene}
    return read_given(index, rows["base"]), read_given(index, rows["fact_changed"])


def test_a_single_grey_level_gives_it_away(pair):
    base, twin = pair
    first = twin.first.copy()
    first[0, 5, 7, 1] ^= 1
    assert leak_of(base, twin, 0.0) == ""
    assert "first frames differ by" in leak_of(base, replace(twin, first=first), 0.0)
    assert leak_of(base, replace(twin, first=first), 0.01) == ""  # as much as two recordings of one scene differ


def test_cameras_and_pixels_of_the_fact_give_it_away(pair):
    base, twin = pair
    c2w = twin.cameras.c2w.copy()
    c2w[0, 2, 3, 0, 3] += 1e-3
    assert leak_of(base, replace(twin, cameras=replace(twin.cameras, c2w=c2w)), 0.0) == "the observer's cameras differ"
    assert "3 pixels" in leak_of(replace(base, fact_pixels=3), twin, 0.0)


def test_a_partner_that_sees_no_difference_tells_nothing(pair):
    base, twin = pair
    assert tells(base, twin, 0.0) is True
    assert tells(base, twin, 255.0) is False  # as much as two recordings of one scene differ
    assert tells(base, replace(twin, first=base.first), 0.0) is False


def test_a_path_that_was_not_recorded_cannot_be_asked(pair):
    base, twin = pair
    swerving = {**base.meta, "fact": {**base.meta["fact"], "task": "trajectory"}}
    base = replace(base, meta=swerving)
    assert tells(base, twin, 0.0) is False  # agent 1 drives the same way
    cut = replace(twin.cameras, c2w=twin.cameras.c2w[:, :, :1])
    assert tells(base, replace(twin, cameras=cut), 0.0) is None


def test_ordinary_clips_are_refused(tmp_path):
    write_dataset(tmp_path / "plain")
    with pytest.raises(BenchmarkError, match="has no scene with a twin: record it with a shared-world-bench preset"):
        check_leaks(tmp_path / "plain")
