"""Localisation, counterfactual response, swap and drift: figures that can be worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.metrics import HIGHEST_DB
from tasks.evaluation.measures.shared_world import drift, localisation, swap, visibility
from tasks.evaluation.measures.shared_world.counterfactual import response
from tasks.evaluation.measures.shared_world.localisation import CarDetector, calibrate, figures, sightings
from tasks.evaluation.measures.shared_world.measure import WindowGeometry, measure_window
from tests.tasks.evaluation.measures.shared_world import room


@pytest.fixture(scope="module")
def meeting():
    return room.build(room.car_poses(7, 0.8), width=48, height=32)


def found_in(world, video, strength=0.8):
    return figures(sightings(world, video, CarDetector(strength)))


def test_the_true_car_is_found_where_it_is(meeting):
    world, truth = meeting
    own = found_in(world, truth)
    assert own["other_recall"] == 1
    assert own["other_false_presence"] == 0
    assert own["other_centre_px"] == 0
    assert own["other_iou"] == 1
    assert own["other_recall_front"] == 1
    assert own["other_recall_rear"] is None  # it comes from ahead and never gets behind
    assert calibrate([meeting]).strength in localisation.STRENGTHS


def test_a_car_in_the_wrong_place_is_off_by_so_many_pixels_and_degrees():
    world, truth = room.build(room.car_poses(4, 0.1, apart_m=5.0), width=48, height=32)
    moved = np.where((world.ids > 0)[..., None], np.float32(0.3), truth)
    shifted = np.roll(world.ids > 0, -2, -1)
    assert not (world.ids > 0)[..., :2].any()  # no part of it leaves the view
    moved[shifted] = room.RED
    off = found_in(world, moved)
    assert off["other_recall"] == 1
    assert off["other_centre_px"] == pytest.approx(2, abs=1e-9)
    assert 1.2 < off["other_bearing_deg"] < np.degrees(np.arctan(2 / 24))  # most in the middle of a view
    assert 0 < off["other_iou"] < 1


def test_a_missing_car_and_one_too_many_are_told_apart(meeting):
    world, truth = meeting
    gone = np.where((world.ids > 0)[..., None], np.float32(0.3), truth)
    none = found_in(world, gone)
    assert none["other_recall"] == 0
    assert none["other_iou"] == 0
    assert none["other_centre_px"] is None
    assert none["other_false_presence"] == 0
    ghost = gone.copy()
    ghost[:, 1, :, 10:14, 10:14] = room.RED
    assert found_in(world, ghost)["other_false_presence"] == pytest.approx(
        np.mean([look.view == "rear" for look in sightings(world, ghost, CarDetector(0.8)) if not look.visible])
    )


def test_distances_are_kept_apart():
    world, truth = room.build(room.car_poses(3, 0.0, apart_m=8.0), width=48, height=32)
    near_and_far = found_in(world, truth)
    assert near_and_far["other_recall_middle"] == 1  # 16.5 m
    assert near_and_far["other_recall_near"] is None
    assert near_and_far["other_recall_far"] is None
    for figure in ("centre_px", "bearing_deg", "iou"):
        assert near_and_far[f"other_{figure}_middle"] == near_and_far[f"other_{figure}"] is not None
        assert near_and_far[f"other_{figure}_near"] is None
    assert near_and_far["other_false_presence_rear"] == 0


def test_without_the_cars_poses_only_the_split_by_distance_is_missing(meeting):
    world, truth = meeting
    unknown = dataclasses.replace(world, cars=np.full_like(world.cars, np.nan))
    both = {}
    for name, of in (("known", world), ("unknown", unknown)):
        missing: dict[str, str] = {}
        window = WindowGeometry(of, truth, {}, None)
        both[name] = measure_window(window, calibrate([(of, truth)]), missing, ground_truth="truth", floor="")["truth"]
        reasons = {} if of is world else dict.fromkeys(localisation.BY_DISTANCE, localisation.NO_POSES)
        assert missing == reasons
    for figure in ("recall", "recall_front", "false_presence", "centre_px", "bearing_deg", "iou"):
        assert both["unknown"][f"other_{figure}"] == both["known"][f"other_{figure}"] is not None
    assert [both["unknown"][figure] for figure in localisation.BY_DISTANCE] == [None] * 12
    assert both["known"]["other_recall_middle"] == 1


def test_one_agent_alone_has_no_other_car():
    with pytest.raises(EvaluationError, match="not measured: one agent alone"):
        calibrate([room.build(room.car_poses(3, 0.5)[:1])])


def test_a_car_whose_pose_is_not_known_is_nobodys(meeting):
    world, _ = meeting
    unknown = dataclasses.replace(world, cars=np.full_like(world.cars, np.nan))
    for agent in range(2):
        classes, known = (visibility.classify(of, agent, 3) for of in (unknown, world))
        car = world.ids[agent, :, 3] > 0
        assert car.any()
        assert (classes[car] == 0).all()
        assert np.array_equal(classes[~car], known[~car])


def test_a_detector_that_cannot_tell_says_so(meeting):
    world, truth = meeting
    grey = truth.mean(-1, keepdims=True).repeat(3, -1)
    with pytest.raises(EvaluationError, match=r"has a recall of 0\.00 .*it tells nothing here") as error:
        calibrate([(world, grey)])
    assert "\n" not in str(error.value)
    brick = truth.copy()
    brick[:, :, :, :6] = room.RED
    with pytest.raises(EvaluationError, match=r"a false presence of 1\.00"):
        calibrate([(world, brick)])
    empty = dataclasses.replace(world, other=np.zeros_like(world.other))
    with pytest.raises(EvaluationError, match="never in sight"):
        calibrate([(empty, truth)])


def test_a_response_is_the_true_change_and_nothing_else():
    rng = np.random.default_rng(0)
    base = rng.random((4, 5, 8, 12, 3)).astype(np.float32)
    change = np.zeros_like(base)
    change[0, :, 2:6, 2:6] = 0.4
    guess = rng.random(base.shape).astype(np.float32)

    def answer(generated_change):
        found = response(guess, guess + generated_change, base, base + change)
        return [found[f"counterfactual_{name}"] for name in ("response", "cosine", "outside")]

    assert answer(change) == pytest.approx([1, 1, 0], abs=1e-6)
    assert answer(0.5 * change) == pytest.approx([0.5, 1, 0], abs=1e-6)
    assert answer(-change) == pytest.approx([-1, -1, 0], abs=1e-6)
    assert answer(np.roll(change, 6, 3)) == pytest.approx([0, 0, 1], abs=1e-6)
    both = change.copy()
    both[1, :, 2:6, 2:6] = 0.4
    assert answer(both) == pytest.approx([1, np.sqrt(0.5), 0.5], abs=1e-6)
    assert answer(0 * change) == [0, None, None]
    given = np.zeros_like(change)
    given[:, 0] = 1  # a change of the given frame alone is none
    assert answer(given) == [0, None, None]
    assert set(response(guess, guess + change, base, base).values()) == {None}


def test_swap_is_scored_on_later_frames_over_everything():
    views = torch.rand(2, 2, 4, 5, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    other = views.clone()
    other[:, :, :, 0] = 0
    assert swap.pooled_psnr(views, other).tolist() == [HIGHEST_DB, HIGHEST_DB]
    other[1] += 0.1
    assert swap.pooled_psnr(views, other)[0] == HIGHEST_DB
    assert float(swap.pooled_psnr(views, views + 0.1)[0]) == pytest.approx(20, abs=1e-3)
    assert (swap.swapped(views)[:, 0] == views[:, 1]).all()


@pytest.mark.parametrize(("one", "other", "angle"), [(10, 350, 20), (-179, 179, 2), (0, 180, 180), (95, 90, 5)])
def test_a_bearing_is_off_by_the_shorter_way_around(one, other, angle):
    assert localisation.angle_between_deg(one, other) == localisation.angle_between_deg(other, one) == angle


def test_drift_is_the_first_windows_psnr_minus_the_lasts():
    truth = torch.full((2, 4, 25, 3, 4, 6), 0.5)
    video = truth.clone()
    for window, error in enumerate((0.01, 0.0316227766, 0.1)):
        video[:, :, 1 + 8 * window : 9 + 8 * window] += error
    video[:, :, 9:17, :, :, ::2] += 0.01  # stripes beside a codec that has them half as high everywhere
    codec = truth.clone()
    codec[..., ::2] += 0.005
    found = drift.figures(video, truth, codec, 9)
    assert [found[f"rollout_sharpness_{k}"] for k in (1, 2, 3)] == pytest.approx([0, 2, 0], abs=1e-4)
    video[:, :, 9:17, :, :, ::2] -= 0.01
    found = drift.figures(video, truth, codec, 9)
    assert [found[f"rollout_psnr_{k}"] for k in (1, 2, 3)] == pytest.approx([40, 30, 20], abs=1e-2)
    assert found["rollout_drift"] == pytest.approx(20, abs=2e-2)
    with pytest.raises(ValueError, match="25 frames is no whole number of windows of 10"):
        drift.figures(video, truth, codec, 10)
