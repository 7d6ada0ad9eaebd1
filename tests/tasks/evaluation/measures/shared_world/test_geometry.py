"""Sight and classes in a room where both are known by construction; reading a clip's geometry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from model.presets import Preset
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.shared_world import visibility
from tasks.evaluation.measures.shared_world.sight import SEEN, UNCLEAR, UNSEEN, look
from tasks.evaluation.measures.shared_world.world import centred, chosen_frames, read_window_truth, taken_before_centre
from tasks.recording.encode import halved_nearest
from tasks.sharding.convert import resize_nearest
from tasks.sharding.reader import ClipPairs
from tests.synthetic_dataset import write_dataset
from tests.tasks.evaluation.measures.shared_world import room


def truly_seen(world, points, agent, frame) -> np.ndarray:
    """Which points lie in one of the agent's views, none of them hidden by the screen."""
    seen = np.zeros(points.shape[:-1], bool)
    height, width = world.inverse.shape[-2:]
    for view in range(4):
        c2w = world.c2w[agent, view, frame]
        local = (points - c2w[:3, 3]) @ c2w[:3, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            image = local @ world.K[agent, view].T
            x, y = image[..., 0] / image[..., 2], image[..., 1] / image[..., 2]
        inside = (local[..., 2] > 0.05) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        seen |= inside & room.line_is_free(c2w[:3, 3], points, *room.SCREEN)
    return seen


def test_sight_agrees_with_the_geometry():
    world, _ = room.build(room.car_poses(3, 0.5), screen=True, bodies=False)
    state, view, place = look(world, 0, 2, 1, 2)
    true = truly_seen(world, room.points_of(world, 0, 2), 1, 2)
    assert 0.2 < true.mean() < 0.8
    assert (state == SEEN)[~true].mean() < 0.001
    assert (state == SEEN)[true].mean() > 0.9
    assert (state == UNCLEAR).mean() < 0.06
    assert set(np.unique(view[state == SEEN])) <= {0, 1, 2, 3}
    assert ((place[state == SEEN] >= 0) & (place[state == SEEN] <= 1)).all()


def test_an_agent_sees_its_own_pixels_where_they_are():
    world, _ = room.build(room.car_poses(1, 0.5), bodies=False)
    state, view, place = look(world, 0, 0, 0, 0)
    height, width = world.inverse.shape[-2:]
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    assert (state == SEEN).all()
    own = view == np.arange(4)[:, None, None]
    assert own.mean() > 0.95  # the rest lies where two views meet
    assert np.abs(place - np.stack([x, y], -1))[own].max() < 1e-4


def test_depth_that_was_taken_beside_the_centre_is_moved_there():
    """Views are rendered at twice the size, and depth is every second pixel's: a road that both saw stays seen."""
    cars = room.car_poses(9, 1.5, apart_m=14.0)
    exact, _ = room.build(cars, bodies=False)
    large, _ = room.build(cars, bodies=False, width=72, height=48)
    pixels = np.moveaxis(large.inverse, (-2, -1), (0, 1))
    beside = np.moveaxis(halved_nearest(pixels), (0, 1), (-2, -1)).copy()
    before = taken_before_centre(48, 24), taken_before_centre(72, 36)
    assert before == (0.25, 0.25)
    focal = float(exact.K[0, 0, 0, 0])
    moved = centred(beside, exact.ids, focal, before)
    assert np.median(np.abs(beside / exact.inverse - 1)) > 1e-3
    assert (np.abs(moved / exact.inverse - 1) < 1e-4).mean() > 0.9  # the rest lies where walls meet

    def seen(inverse):
        world = dataclasses.replace(exact, inverse=inverse, stored_inverse=inverse)
        return (look(world, 0, 8, 0, 0)[0] == SEEN).mean()

    assert seen(moved) > 0.97 * seen(exact.inverse)
    assert seen(beside) < 0.7 * seen(exact.inverse)


def test_at_an_edge_the_sample_stays():
    inverse = np.tile(np.float32([0.5, 0.5, 0.1, 0.1, 0.0]), (3, 1))
    ids = np.zeros(inverse.shape, np.uint16)
    assert (centred(inverse, ids, 24.0, (0.25, 0.25)) == inverse).all()


@pytest.mark.parametrize(
    ("rendered", "stored", "before"), [(48, 48, 0), (96, 48, 1 / 4), (144, 48, 0), (192, 48, 1 / 8)]
)
def test_where_depth_was_taken(rendered, stored, before):
    assert taken_before_centre(rendered, stored) == before
    kept = resize_nearest(np.tile(np.arange(rendered), (rendered, 1)), (stored, stored))[0]
    centres = (kept + 0.5) * stored / rendered
    assert centres == pytest.approx(np.arange(stored) + 0.5 - before)


def test_the_classes_are_those_of_the_geometry():
    """Agent 0 drives through the gap of a screen behind which only agent 1 has looked."""
    world, truth = room.build(room.car_poses(9, 1.0), screen=True, bodies=False)
    classes = visibility.classify(world, 0, 8)
    points = room.points_of(world, 0, 8)
    own, other = truly_seen(world, points, 0, 0), truly_seen(world, points, 1, 0)
    assert own[classes == 1].mean() > 0.998
    assert other[classes == 2].mean() > 0.99
    assert own[classes == 2].mean() < 0.01
    assert (own | other)[classes == 3].mean() < 0.01
    assert min((classes == code).mean() for code in (1, 2, 3)) > 0.02
    assert (classes == 4).mean() < 0.1
    wrong = truth.copy()
    for agent in (0, 1):
        for frame in range(1, 9):
            wrong[agent, :, frame][visibility.classify(world, agent, frame) == 2] += 0.1
    figures, shares = visibility.measure_visibility(world, {"model": wrong, "shifted": truth + 0.01}, truth)
    assert figures["model"]["psnr_only_other"] == pytest.approx(20, abs=1e-3)
    assert figures["model"]["psnr_own"] == figures["model"]["psnr_nobody"] == 60
    assert figures["shifted"]["psnr_own"] == pytest.approx(40, abs=1e-2)
    assert 0.5 < sum(shares.values()) < 1


def test_a_car_is_carried_along():
    """What of the other car shows later was seen at first, though it is elsewhere by then."""
    world, _ = room.build(room.car_poses(5, 1.0))
    later = world.ids[0, :, 4] == 2
    state, _, _ = look(world, 0, 4, 0, 0)
    assert later.sum() > 10
    assert (state[later] >= UNCLEAR).mean() > 0.9
    still = dataclasses.replace(world, cars=np.repeat(world.cars[:, :1], 5, 1))
    state, _, _ = look(still, 0, 4, 0, 0)
    assert (state[later] == UNSEEN).mean() > 0.5


def test_nothing_is_said_of_a_class_that_is_not_there():
    world, truth = room.build(room.car_poses(3, 0.0), bodies=False)
    figures, _ = visibility.measure_visibility(world, {"model": truth}, truth)
    assert figures["model"]["psnr_nobody"] is None
    assert figures["model"]["psnr_own"] == 60


@pytest.mark.parametrize(("frames", "step", "last"), [(9, 1, 8), (17, 1, 16), (33, 2, 32), (49, 4, 48), (81, 8, 80)])
def test_long_windows_are_measured_on_fewer_frames(frames, step, last):
    chosen = chosen_frames(frames)
    assert chosen[0] == 0
    assert chosen[-1] == last
    assert set(np.diff(chosen)) == {step}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = write_dataset(tmp_path_factory.mktemp("worlds"), train=1, val=0, test=1, view_width=48, view_height=32)
    return {split: ClipPairs(folder, split)[0] for split in ("train", "test")}


def video_config(**changes):
    return Preset.load("tiny").replace(**changes).video


def test_a_clip_is_read_at_the_models_size(clips):
    full = read_window_truth(clips["test"], video_config(height=64, width=96, frames=9))
    half = read_window_truth(clips["test"], video_config(height=32, width=48, frames=9), 8)
    assert full.inverse.shape == (2, 4, 9, 32, 48)
    assert np.isfinite(full.inverse).all()
    assert half.inverse.shape == (2, 4, 9, 16, 24)
    assert half.stored_inverse.shape == (2, 4, 9, 32, 48)
    assert half.K[0, 0, 0, 0] == full.K[0, 0, 0, 0] / 2
    mixed = np.isnan(half.inverse)
    assert 0 < mixed.mean() < 0.2
    cells = half.stored_inverse.reshape(2, 4, 9, 16, 2, 24, 2)
    assert (cells.max((4, 6)) > cells.min((4, 6)))[mixed].all()
    assert np.nanmax(np.abs(half.inverse - cells.mean((4, 6)))) < 1e-6
    front = read_window_truth(clips["test"], video_config(height=32, width=48, frames=9, views="front"))
    assert front.inverse.shape == (2, 1, 9, 32, 48)


@pytest.mark.parametrize(
    ("split", "start", "changes", "sentence"),
    [
        ("train", 0, {}, "lacks depth or instance ids"),
        ("test", 12, {}, "17 frames and a window of 9 from 12 does not fit"),
        ("test", 0, {"height": 48, "width": 80}, "no whole part"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(clips, split, start, changes, sentence):
    with pytest.raises(EvaluationError, match=sentence) as error:
        read_window_truth(clips[split], video_config(**({"height": 64, "width": 96, "frames": 9} | changes)), start)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("not measured: ")


def test_of_large_views_fewer_pixels_are_followed(clips, monkeypatch):
    video = video_config(height=64, width=96, frames=9)
    full = read_window_truth(clips["test"], video)
    monkeypatch.setattr("tasks.evaluation.measures.shared_world.world.MOST_PIXELS", 32 * 48 // 2)
    thin = read_window_truth(clips["test"], video)
    assert np.isfinite(thin.inverse).mean() == 0.25
    assert (thin.inverse[..., ::2, ::2] == full.inverse[..., ::2, ::2]).all()
    assert (thin.stored_inverse == full.stored_inverse).all()
