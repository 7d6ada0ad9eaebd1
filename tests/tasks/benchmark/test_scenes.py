"""Reading the scenes with their twins, and refusing what cannot be scored."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.scenes import ground_truth_of, read_scenes, slots_of
from tasks.sharding.reader import ClipIndex, read_pair
from tasks.sharding.shards import write_shards
from tests.painted_world import COLOURS, FACE_ID, write_painted_dataset
from tests.tasks.benchmark.conftest import PRESET


def test_nothing_that_the_observer_is_given_depends_on_the_fact(scenes):
    assert torch.equal(scenes.first[:, 0], scenes.twin_first[:, 0])
    assert torch.equal(scenes.c2w, scenes.twin_c2w)
    assert (scenes.first[:, 1] != scenes.twin_first[:, 1]).flatten(1).any(1).all()
    assert (scenes.labels[:, 0] != scenes.labels[:, 1]).all()


def test_masks_are_the_pixels_of_the_fact_after_frame_0(painted, scenes):
    index = ClipIndex(painted)
    row = next(row for row in index.rows if row["scene_id"] == scenes.names[3] and row["variant"] == "base")
    pair = read_pair(row["key"], index.read(row))
    assert pair.instance is not None
    expected = pair.instance[0] == FACE_ID
    assert not expected[0].any()
    assert np.array_equal(scenes.masks[3, 0].numpy(), expected)
    assert float(scenes.cells[3]) == expected.sum() / 64
    shown = (scenes.truth[3, 0].movedim(0, -1)[scenes.masks[3, 0]] + 1) / 2
    assert (shown.mean(0) - torch.tensor(COLOURS[int(scenes.labels[3, 0])]) / 255).abs().max() < 0.15


def test_depth_is_the_recordings(painted, scenes):
    index = ClipIndex(painted)
    row = next(row for row in index.rows if row["scene_id"] == scenes.names[0] and row["variant"] == "base")
    pair = read_pair(row["key"], index.read(row))
    assert np.array_equal(scenes.depth_m[0].numpy(), pair.depth_m)


def test_a_task_and_a_distance_are_chosen(painted):
    found = read_scenes(painted, PRESET, task="appearance", distance="large")
    assert set(found.towns) == {"PaintedC", "PaintedD"}
    assert (found.task, found.distance, found.alternatives) == ("appearance", "large", 4)


def test_equal_calls_give_equal_bytes(tmp_path):
    digests = {ClipIndex(write_painted_dataset(tmp_path / name, train=1, test=1)).digest for name in "ab"}
    assert len(digests) == 1


def test_a_task_that_is_not_there(painted):
    with pytest.raises(BenchmarkError, match=r"no test scenes of binding .*there are appearance large"):
        read_scenes(painted, PRESET, task="binding")


def test_a_scene_whose_twin_was_rejected_is_left_out_and_counted(painted, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(painted, folder)
    twins = [row for row in ClipIndex(folder).rows if row["variant"] == "fact_changed"]
    shutil.rmtree(folder / "recordings" / twins[2]["recording_id"])
    write_shards(folder)
    left, everything = read_scenes(folder, PRESET), read_scenes(painted, PRESET)
    assert set(everything.names) - set(left.names) == {twins[2]["scene_id"]}
    assert len(left) == len(everything) - 1


def test_a_split_that_was_trained_on(tmp_path):
    folder = write_painted_dataset(tmp_path / "shared", train=1, test=1, shared_town=True)
    with pytest.raises(BenchmarkError, match="trains on PaintedA and tests there too"):
        read_scenes(folder, PRESET)


@pytest.mark.parametrize("member", ["depth_m", "instance"])
def test_clips_without_depth_or_instance_ids(painted, member):
    index = ClipIndex(painted)
    row = index.split("test")[0]
    pair = dataclasses.replace(read_pair(row["key"], index.read(row)), **{member: None})
    with pytest.raises(BenchmarkError, match=f"clip {row['key']} has no depth and instance ids"):
        ground_truth_of(pair)


def test_what_the_masks_of_each_task_show():
    fact = {"observer": 0, "actors": [1, 4]}
    assert slots_of(fact | {"task": "appearance"}) == [[(0, 4), (0, 7)]]
    assert slots_of(fact | {"task": "binding"}) == [[(0, 4)], [(0, 7)]]
    assert slots_of(fact | {"task": "trajectory"}) == [[(0, 2), (1, 2)]]
    with pytest.raises(BenchmarkError, match="binding two"):
        slots_of({"observer": 0, "actors": [1], "task": "binding"})
