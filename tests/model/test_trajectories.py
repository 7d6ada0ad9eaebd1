"""Cameras from what a person has: poses, cameras, speed and steering agree; what cannot be followed is refused."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch

from model.bicycle import drive
from model.camera import MOUNTS, VIEWS, camera_poses, carla_to_c2w, intrinsics
from model.trajectories import POSE_FIELDS, TrajectoryError, cameras

OPTIONS = {"frames": 9, "views": "four", "fps": 10.0, "fov_deg": 90.0}
START = [3.0, -2.0, 0.5, 0.0, 90.0, 0.0]
SPEED, STEERING = [4.0] * 9, [0.3] * 9
POSES = drive(START, SPEED, STEERING, 10.0)
C2W = carla_to_c2w(camera_poses(POSES)).swapaxes(0, 1)


def named(poses):
    return [dict(zip(POSE_FIELDS, map(float, pose), strict=True)) for pose in poses]


def cameras_of(trajectory, **changes):
    K, c2w = cameras([trajectory], agents=1, **OPTIONS | changes)
    return K[0].numpy(), c2w[0].numpy()


def test_every_form_of_a_trajectory_gives_the_same_cameras():
    steered = {"start": named([START])[0], "speed_mps": SPEED, "steering": STEERING}
    for form in (named(POSES), POSES, torch.from_numpy(POSES), POSES.tolist(), steered, C2W, {"c2w": C2W}):
        K, c2w = cameras_of(form)
        np.testing.assert_allclose(c2w, C2W, atol=1e-9)
        np.testing.assert_allclose(K, np.broadcast_to(intrinsics(2, 2, 90.0), (4, 3, 3)))


def test_the_front_camera_looks_where_the_car_goes_and_has_the_rigs_mount():
    _, c2w = cameras_of(np.tile([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], (9, 1)))
    assert VIEWS[0] == "front"
    np.testing.assert_allclose(c2w[0, 0, :3, 3], np.array(MOUNTS["front"][:3]), atol=1e-9)
    np.testing.assert_allclose(c2w[0, 0, :3, 2], [1, 0, 0], atol=1e-9)


def test_own_intrinsics_are_taken_for_all_views_or_one_by_one():
    own = intrinsics(640, 480, 60.0)
    assert np.array_equal(cameras_of({"c2w": C2W, "K": own})[0], np.broadcast_to(own, (4, 3, 3)))
    assert np.array_equal(cameras_of({"c2w": C2W, "K": [own] * 4})[0], np.broadcast_to(own, (4, 3, 3)))
    K, c2w = cameras_of(C2W[:1], views="front")
    assert (K.shape, c2w.shape) == ((1, 3, 3), (1, 9, 4, 4))


def test_a_file_holds_a_list_or_an_object(tmp_path):
    file = tmp_path / "t.json"
    for content in ([named(POSES)], {"trajectories": [named(POSES)], "more": "is not read"}):
        file.write_text(json.dumps(content))
        for path in (file, str(file)):
            _, c2w = cameras(path, agents=1, **OPTIONS)
            np.testing.assert_allclose(c2w[0], C2W, atol=1e-9)
    file.write_text("{")
    for path, sentence in ((file, "no readable JSON"), (tmp_path / "none.json", "cannot be read")):
        with pytest.raises(TrajectoryError, match=sentence):
            cameras(path, agents=1, **OPTIONS)


def test_long_trajectories_are_whole_windows():
    for length, fitting in ((10, "give 9 or 17"), (1, "give 9"), (16, "give 9 or 17"), (18, "give 17 or 25")):
        with pytest.raises(TrajectoryError, match=f"have {length} frames, .*: {fitting}"):
            cameras_of(np.zeros((length, 6)))
    assert cameras_of(np.zeros((17, 6)))[1].shape == (4, 17, 4, 4)


@pytest.mark.parametrize(
    ("trajectory", "sentence"),
    [
        ([*named(POSES)[:3], {"x": 1.0}], "pose 3 of agent 0 is not {x, y, z, pitch, yaw, roll}"),
        ([named([START])[0] | {"yaw": "north"}] * 9, "has yaw 'north': give a number"),
        ([named([START])[0] | {"x": True}] * 9, "has x True"),
        (np.full((9, 6), np.nan), "values that are not finite"),
        (np.full((9, 6), 1e7), "pose 0 of agent 0 has x 1e\\+07: give at most 1e\\+06"),
        ([[0, 0, 0, 95.0, 0, 0]] * 9, "has pitch 95: give at most 90"),
        (np.zeros((9, 5)), "has shape \\(9, 5\\)"),
        ([[1, 2], [3]], "no numbers of one shape"),
        ("north", "no numbers of one shape"),
        ({"speed_mps": SPEED, "steering": STEERING}, "has no 'start'"),
        ({"start": START, "speed_mps": [40.0] * 9, "steering": STEERING}, "agent 0: speed_mps is 40"),
        ({"start": START, "speed_mps": SPEED, "steering": STEERING[:3]}, "9 speeds and 3 steerings"),
        (C2W[:3], "has shape \\(3, 9, 4, 4\\)"),
        (C2W * 2, "no rotation and position"),
        (np.concatenate([C2W[..., :1] * -1, C2W[..., 1:]], -1), "no rotation and position"),
        ({"c2w": C2W, "K": np.eye(3)}, "no pinhole camera"),
        ({"c2w": C2W, "K": np.eye(4)}, "K of agent 0 has shape"),
    ],
)
def test_what_no_camera_can_follow_is_refused(trajectory, sentence):
    with pytest.raises(TrajectoryError, match=sentence):
        cameras_of(trajectory)


def test_a_first_camera_without_a_heading_is_refused():
    down = np.tile(np.eye(4), (4, 9, 1, 1))  # along z, which is the world's vertical
    with pytest.raises(TrajectoryError, match="first camera of agent 0 looks straight up or down"):
        cameras_of(down)


def test_agents_that_differ_are_refused():
    two = partial(cameras, agents=2, **OPTIONS)
    for given, sentence in (
        ([POSES], "1 trajectories and 2 pictures"),
        ([POSES, np.zeros((17, 6))], "have \\[9, 17\\] frames"),
        ({"poses": []}, "has no 'trajectories'"),
        (7, "is a int"),
    ):
        with pytest.raises(TrajectoryError, match=sentence):
            two(given)
