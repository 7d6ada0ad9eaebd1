"""Figures by group and by distance, and which windows are worst."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.scoring import breakdown
from tasks.evaluation.scoring.breakdown import DISTANCE, by_group, distances, worst_windows
from tasks.evaluation.scoring.scores import Scores
from tasks.evaluation.scoring.windows import Window
from tasks.sharding.reader import ClipIndex, read_cameras


def scores_of(means: dict[str, float]) -> Scores:
    """Scores of one window per scene; scene s1 lies in Town1, and so on, and shares its recording with none."""
    scores = Scores(None)
    for name, mean in means.items():
        row = {"key": name, "scene_id": name, "recording_id": name, "town": f"Town{name[1]}",
               "weather": "clear_noon", "trajectory_type": "crossing"}  # fmt: skip
        scores.put("model", [Window(row, 0)], {"psnr": torch.full((1, 2, 4, 8), mean)})
    return scores


def test_groups_of_several_scenes_have_intervals():
    tables = by_group(scores_of({"s1a": 10.0, "s1b": 20.0, "s2a": 30.0}), "model")
    assert list(tables) == ["town", "weather", "type"]
    assert tables["town"]["Town2"] == {"mean": 30.0, "scenes": 1}
    town = tables["town"]["Town1"]
    assert (town["mean"], town["scenes"]) == (15.0, 2)
    assert town["low"] < 15 < town["high"]
    assert tables["weather"]["clear_noon"]["mean"] == 20.0


def test_distance_is_counted_by_agent_and_frame():
    scores = scores_of({"s1a": 10.0, "s2a": 20.0})
    distance_m = {"s1a+00": np.full((2, 8), 5.0), "s2a+00": np.full((2, 8), 15.0)}
    distance_m["s2a+00"][:, 0] = 9.99
    distance_m["s2a+00"][1, 7] = 400.0
    found = by_group(scores, "model", distance_m)[DISTANCE]
    assert list(found) == ["0 to 10 m", "10 to 20 m", "40 m or more"]
    assert found["0 to 10 m"]["mean"] == pytest.approx((16 * 10 + 2 * 20) / 18)
    assert found["10 to 20 m"] == {"mean": 20.0, "scenes": 1}


def test_distances_are_those_of_the_cars_in_the_scored_frames(run):
    row = ClipIndex(run.dataset_dir).split("test")[0]
    found = distances(run.dataset_dir, [Window(row, 4)], 8)[Window(row, 4).name]
    at = read_cameras(ClipIndex(run.dataset_dir).read(row)["cameras.npz"]).agent_pose[:, 5:13, :3]
    assert found.shape == (2, 8)
    assert found[0] == pytest.approx(np.linalg.norm(at[0] - at[1], axis=-1))
    assert (found[0] == found[1]).all()
    assert found[0, 0] != found[0, 7]


def test_distances_that_the_cameras_do_not_tell_are_no_distances(run, monkeypatch):
    row = ClipIndex(run.dataset_dir).split("test")[0]
    cameras = read_cameras(ClipIndex(run.dataset_dir).read(row)["cameras.npz"])
    for poses in (np.full_like(cameras.agent_pose, np.nan), cameras.agent_pose[:1]):
        changed = dataclasses.replace(cameras, agent_pose=poses)
        monkeypatch.setattr(breakdown, "read_cameras", lambda _, changed=changed: changed)
        with pytest.raises(EvaluationError, match=f"clip {row['key']} does not hold the poses of two agents' cars"):
            distances(run.dataset_dir, [Window(row, 4)], 8)


def test_the_worst_come_first_and_one_a_recording():
    scores = scores_of({"s1a": 12.0, "s2a": 9.0, "s3a": 11.0})
    scores.put("model", [Window(scores.windows["s2a+00"].row, 8)], {"psnr": torch.full((1, 2, 4, 8), 8.0)})
    assert [window.name for window in worst_windows(scores, "model", 2)] == ["s2a+08", "s3a+00"]
