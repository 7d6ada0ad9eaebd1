"""A real recording, end to end through the real client: windows, cameras, masks, bytes."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import carla
import numpy as np
import pytest

from infra.storage import sha256_file
from model.camera import MOUNTS, VIEWS, project
from tasks.planning.rows import read_plan
from tasks.recording.pool import record_plan
from tasks.recording.recorder import ticks_to_drive
from tasks.recording.rig import AGENTS, transform_from_pose
from tasks.sharding.reader import ClipPairs
from tests.conftest import SPEC, planned


@pytest.fixture(scope="module")
def pairs(tiny):
    return {split: list(ClipPairs(tiny.folder, split)) for split in ("train", "test")}


@pytest.fixture(scope="module")
def plan(tiny):
    return {row.recording_id: row for row in read_plan(tiny.folder / "plan.parquet")}


def test_everything_was_recorded_at_the_first_attempt(tiny):
    assert (tiny.recording.recorded, tiny.recording.already_done) == (2, 0)
    assert not tiny.recording.rejected
    assert not tiny.recording.faults
    assert (tiny.sharding.written, tiny.sharding.clips, tiny.sharding.missing) == (2, 4, {})


def test_a_second_run_records_nothing_and_says_so(tiny):
    before = {path: path.stat().st_mtime_ns for path in tiny.folder.rglob("*.mp4")}
    again = record_plan(tiny.folder, SPEC)
    assert again.sentences() == ["2 of 2 were recorded before; nothing to record."]
    assert before == {path: path.stat().st_mtime_ns for path in tiny.folder.rglob("*.mp4")}


def test_nothing_that_changes_from_run_to_run_is_in_a_recording(tiny):
    for record in tiny.folder.glob("recordings/*/recording.json"):
        assert set(json.loads(record.read_text())) == {"recording_id", "files", "scores"}
    for meta in tiny.folder.glob("recordings/*/*/meta.json"):
        words = set(json.loads(meta.read_text())) | {"attempts"}
        assert not words & {"host", "actor_id", "server_frame", "time", "pid"}
    for record in tiny.folder.glob("recordings/*/recording.json"):
        for name, digest in json.loads(record.read_text())["files"].items():
            assert sha256_file(record.parent / name) == digest


def test_windows_hold_the_planned_ticks(pairs, plan):
    for pair in (*pairs["train"], *pairs["test"]):
        row = plan[pair.meta["recording_id"]]
        ticks = pair.meta["window"] + row.stride * np.arange(row.frames)
        assert pair.videos.shape == (AGENTS, row.frames, row.view_height, row.view_width, 3)
        assert (pair.cameras.agent_pose == row.poses[ticks].transpose(1, 0, 2)).all()
        assert np.allclose(pair.cameras.time_s, np.arange(row.frames) * row.stride / 30)
        assert pair.meta["fps"] == pytest.approx(10)


def test_only_stored_ticks_are_driven(plan):
    (row,) = [row for row in plan.values() if row.town == "Mini01"]
    starts = [SimpleNamespace(ticks=[start + row.stride * k for k in range(row.frames)]) for start in row.windows]
    assert ticks_to_drive(row, starts) == list(range(0, 58, 3))
    assert ticks_to_drive(dataclasses.replace(row, skip_unused_ticks=False), starts) == list(range(58))


def test_windows_follow_each_other_in_time(pairs):
    """Windows 0 and 9 at stride 3: frame k + 3 of the first shows the tick of frame k of the second."""
    first, second = pairs["train"]
    assert (first.meta["window"], second.meta["window"]) == (0, 9)
    same = np.abs(first.videos[:, 3:].astype(int) - second.videos[:, :-3]).mean()
    other = np.abs(first.videos.astype(int) - second.videos).mean()
    assert same < 0.4 * other


def test_cameras_agree_with_carla_transforms(pairs):
    """A point before a camera, taken to the world by carla.Transform and by c2w."""
    for pair in pairs["train"]:
        cameras = pair.cameras
        for agent in range(AGENTS):
            for number, view in enumerate(VIEWS):
                for frame in (0, -1):
                    car = transform_from_pose(cameras.agent_pose[agent, frame])
                    x, y, z, _, yaw, _ = MOUNTS[view]
                    mount = car.transform(carla.Location(x, y, z))
                    pose = cameras.carla_pose[agent, number, frame]
                    assert np.allclose(pose[:3], (mount.x, mount.y, mount.z), atol=1e-4)
                    assert abs((pose[4] - cameras.agent_pose[agent, frame, 4] - yaw + 180) % 360 - 180) < 1e-4
                    right, down, forward = 0.7, -0.4, 5.0
                    there = transform_from_pose(pose).transform(carla.Location(forward, right, -down))
                    mine = cameras.c2w[agent, number, frame] @ (right, down, forward, 1.0)
                    assert np.allclose(mine[:3], (there.x, -there.y, there.z), atol=2e-4)


def test_the_other_cars_middle_lies_in_its_mask(pairs):
    """Where nothing stands before it, the projected middle of a car's box is a pixel of that car."""
    checked = 0
    for pair in pairs["test"]:
        depth, instance = views_of(pair.depth_m), views_of(pair.instance)
        cameras = pair.cameras
        for agent in range(AGENTS):
            other = 1 - agent
            height, width = depth.shape[-2:]
            for frame, pose in enumerate(cameras.agent_pose[other]):
                middle = np.array(transform_from_pose(pose).get_matrix()) @ (*cameras.agent_box_center[other], 1.0)
                for view in range(len(VIEWS)):
                    pixel, along = project(
                        middle[None, :3] * (1, -1, 1), cameras.K[agent, view], cameras.c2w[agent, view, frame]
                    )
                    u, v = np.floor(pixel[0]).astype(int)
                    if along[0] < 1 or not (0 <= u < width and 0 <= v < height):
                        continue
                    if depth[agent, frame, view, v, u] < along[0] - cameras.agent_extent[other].max() - 0.3:
                        continue  # something stands before it
                    assert instance[agent, frame, view, v, u] == other + 1
                    checked += 1
    assert checked > 30


def views_of(mosaic: np.ndarray) -> np.ndarray:
    """Return [A, F, V, h, w] of mosaics [A, F, H, W]: front, rear over left, right."""
    rows = np.split(mosaic, 2, axis=-2)
    return np.stack([part for row in rows for part in np.split(row, 2, axis=-1)], 2)


def test_ground_truth_is_recorded_for_held_out_towns_only(pairs):
    assert all(pair.depth_m is None and pair.instance is None for pair in pairs["train"])
    for pair in pairs["test"]:
        assert pair.depth_m.shape == pair.instance.shape == pair.videos.shape[:4]
        assert np.isfinite(pair.depth_m).mean() > 0.5
        assert pair.depth_m.min() > 0.2
        assert set(np.unique(pair.instance)) >= {0, 1, 2}


@pytest.mark.slow
def test_skipping_unused_ticks_changes_no_picture(tiny, tmp_path):
    """The embedded server's images depend on the tick alone, so `tiny` may leave out what no window stores."""
    folder = planned(tmp_path / "all_ticks", skip_unused_ticks=False)
    assert record_plan(folder, SPEC, servers=1).recorded == 2

    def clips(data_set):
        plan = read_plan(data_set / "plan.parquet")
        files = ("agent0.mp4", "agent1.mp4", "agent0.depth.mkv", "agent1.instance.mkv", "cameras.npz")
        paths = {
            (row.town, window, name): data_set / "recordings" / row.recording_id / f"w{window:03d}" / name
            for row in plan for window in row.windows for name in files
        }  # fmt: skip
        return {key: sha256_file(path) for key, path in paths.items() if path.exists()}

    assert clips(folder) == clips(tiny.folder)
    assert len(clips(folder)) == 16
