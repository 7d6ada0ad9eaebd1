"""Co-visible agreement, pose following and seams in a room: the truth is high, strangers and standstill are low."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.shared_world import covisible, pose_following, seams
from tasks.evaluation.measures.shared_world.colours import Colours, correlation_of
from tests.tasks.evaluation.measures.shared_world import room


@pytest.fixture(scope="module")
def scene():
    return room.build(room.car_poses(9, 0.7), screen=True)


@pytest.fixture(scope="module")
def stranger():
    return room.build(room.car_poses(9, 0.2), screen=False, seed=5)[1]


def test_both_videos_of_one_world_agree_and_strangers_do_not(scene, stranger):
    world, truth = scene
    noisy = truth + np.random.default_rng(0).normal(0, 0.03, truth.shape).astype(np.float32)
    rows = {"truth": truth, "noisy": noisy, "strangers": covisible.shuffled(truth, stranger)}
    found = {row: figures["covisible_correlation"] for row, figures in covisible.measure_covisible(world, rows).items()}
    assert found["truth"] > 0.97
    assert found["strangers"] < 0.4
    assert found["strangers"] + 0.3 < found["noisy"] < found["truth"]


def test_grey_agrees_with_nothing(scene):
    world, truth = scene
    assert (
        covisible.measure_covisible(world, {"grey": np.full_like(truth, 0.4)})["grey"]["covisible_correlation"] is None
    )


def test_agents_that_share_no_view_have_no_agreement(scene):
    world, truth = scene
    apart = dataclasses.replace(world, inverse=np.zeros_like(world.inverse))
    assert covisible.measure_covisible(apart, {"truth": truth})["truth"]["covisible_correlation"] is None


def test_a_video_follows_its_own_trajectory_alone(scene, stranger):
    world, truth = scene
    still = np.repeat(truth[:, :, :1], 9, 2)
    backwards = np.ascontiguousarray(truth[:, :, ::-1])
    rows = {"truth": truth, "still": still, "backwards": backwards, "stranger": stranger}
    found = pose_following.measure_pose_following(world, rows)
    assert found["truth"]["pose_correlation"] > 0.97
    assert found["truth"]["still_correlation"] < found["truth"]["pose_correlation"] - 0.05
    assert found["still"]["still_correlation"] == pytest.approx(1, abs=1e-6)
    for row in ("still", "backwards", "stranger"):
        assert found[row]["pose_correlation"] < found["truth"]["pose_correlation"] - 0.05


def test_frames_are_compared_over_the_gap_or_the_next_more():
    assert pose_following.frame_pairs(np.arange(9)) == [(k, k + 4) for k in range(5)]
    assert pose_following.frame_pairs(np.arange(0, 49, 4))[:2] == [(0, 1), (1, 2)]
    assert pose_following.frame_pairs(np.arange(0, 10, 3))[0] == (0, 2)
    assert pose_following.frame_pairs(np.arange(3)) == []


def test_views_fit_together_and_foreign_ones_do_not(scene, stranger):
    world, truth = scene
    mirrored = np.ascontiguousarray(truth[..., ::-1, :])
    rows = {"truth": truth, "strangers": seams.shuffled(truth, stranger), "mirrored": mirrored}
    found = {row: figures["seam_correlation"] for row, figures in seams.measure_seams(world, rows).items()}
    assert found["truth"] > 0.9
    assert found["strangers"] < found["truth"] - 0.3
    assert found["mirrored"] < found["truth"] - 0.1
    assert (seams.shuffled(truth, stranger)[:, :2] == truth[:, :2]).all()
    assert (seams.shuffled(truth, stranger)[:, 2:] == stranger[:, 2:]).all()


def test_views_that_do_not_meet_have_no_seams(scene):
    world, truth = scene
    single = dataclasses.replace(world, inverse=world.inverse[:, :1])
    with pytest.raises(EvaluationError, match="a single view has no seams"):
        seams.measure_seams(single, {"truth": truth[:, :1]})
    narrow = dataclasses.replace(world, K=world.K * np.array([2.0, 2.0, 1.0])[:, None])
    with pytest.raises(EvaluationError, match=r"views 53\.1 degrees wide do not meet"):
        seams.measure_seams(narrow, {"truth": truth})


def test_correlation_is_numpys_and_has_no_value_for_too_little():
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 10, 20, 3))
    y = 0.5 * x + y
    centred = [(a - a.mean((0, 1))).ravel() for a in (x, y)]
    assert correlation_of(x, y) == pytest.approx(np.corrcoef(*centred)[0, 1], abs=1e-9)
    assert correlation_of(x[:1, :8], y[:1, :8]) is None
    assert Colours().correlation() is None


def test_colours_are_sampled_between_pixels():
    ramp = np.broadcast_to(np.linspace(0, 0.9, 10, dtype=np.float32)[None, None, :, None], (1, 10, 10, 3)).copy()
    use, view = np.ones((1, 10, 10), bool), np.zeros((1, 10, 10), np.int8)
    place = np.zeros((1, 10, 10, 2), np.float32)
    place[..., 0], place[..., 1] = 0.5, 0.3
    colours = Colours()
    colours.add(use, view, place, np.full_like(ramp, 0.25), ramp)
    assert colours.pixels == 100
    assert colours.sums[1:7] / 100 == pytest.approx([0.25] * 3 + [0.45] * 3, abs=1e-6)
