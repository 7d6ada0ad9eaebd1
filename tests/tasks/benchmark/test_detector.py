"""The detector reads what is there, never judges a clip by itself, and stops when it is not good enough."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tasks.benchmark.detector import CANNOT_TELL, calibrated, colour_references, readable
from tasks.benchmark.errors import BenchmarkError
from tests.tasks.benchmark.made_scenes import COLOURS, SHOWN, made_scenes, paint


def same(videos: torch.Tensor) -> torch.Tensor:
    return videos


@pytest.mark.parametrize("task", ["appearance", "binding", "trajectory"])
def test_recordings_are_read_right(task):
    scenes = made_scenes(task)
    detector = calibrated(scenes, same)
    assert detector.calibration.truth_accuracy == 1.0
    assert torch.equal(detector.read(scenes.truth[:, 0]), scenes.labels[:, 0])
    assert torch.equal(detector.read(scenes.twin_truth[:, 0]), scenes.labels[:, 1])


@pytest.mark.parametrize("task", ["appearance", "binding", "trajectory"])
def test_what_lies_between_two_labels_is_not_told(task):
    scenes = made_scenes(task)
    detector = calibrated(scenes, same)
    between = (scenes.truth + scenes.twin_truth)[:, 0] / 2
    read = detector.read(between)
    if task == "appearance":  # blue and yellow mix to a grey that is nearer to green
        read = read[scenes.labels[:, 0] != 2]
    assert (read == CANNOT_TELL).all()


def test_a_fact_of_few_pixels_is_not_told():
    scenes = made_scenes("appearance")
    masks = scenes.masks.clone()
    masks[3] = False
    masks[3, 0, 8, 5, 5] = True
    detector = dataclasses.replace(calibrated(scenes, same), scenes=dataclasses.replace(scenes, masks=masks))
    read = detector.read(scenes.truth[:, 0])
    assert read[3] == CANNOT_TELL
    assert (read[:3] == scenes.labels[:3, 0]).all()


def test_no_clip_judges_itself():
    scenes = made_scenes("appearance")
    before, spread = colour_references(scenes, (scenes.truth, scenes.twin_truth))
    truth = scenes.truth.clone()
    paint(truth[0, 0], SHOWN[0], COLOURS[2])
    after, other = colour_references(scenes, (truth, scenes.twin_truth))
    colour = COLOURS[int(scenes.labels[0, 0])]
    assert torch.allclose(before[colour][0], after[colour][0], atol=1e-12)
    assert torch.allclose(spread[0], other[0], atol=1e-6)
    assert not torch.allclose(before[colour][4], after[colour][4], atol=1e-3)


def test_painted_faces_are_read_right_also_after_the_codec(detector):
    assert detector.calibration.truth_accuracy == 1.0
    assert detector.calibration.round_trip_accuracy >= 0.95
    assert "100.0% of the recordings" in str(detector.calibration)


def test_a_codec_that_fades_colours_is_allowed_for():
    scenes = made_scenes("appearance")
    grey = torch.tensor([0.5, 0.5, 0.5]).view(1, 1, 3, 1, 1, 1) * 2 - 1
    faded = calibrated(scenes, lambda videos: grey + 0.35 * (videos - grey))
    assert faded.calibration.truth_accuracy == faded.calibration.round_trip_accuracy == 1.0
    alone, _ = colour_references(scenes, (scenes.truth, scenes.twin_truth))
    for colour in COLOURS:
        assert (faded.references[colour] - 0.5).abs().sum() < (alone[colour] - 0.5).abs().sum()


def test_a_codec_that_hides_the_fact_gives_no_detector():
    with pytest.raises(BenchmarkError, match=r"reads 25\.0% of the codec round trips right .* no score is given"):
        calibrated(made_scenes("appearance"), torch.zeros_like)


def test_recordings_that_do_not_show_the_fact_give_no_detector():
    scenes = made_scenes("binding")
    blank = dataclasses.replace(scenes, truth=scenes.truth * 0, twin_truth=scenes.twin_truth * 0)
    with pytest.raises(BenchmarkError, match="of the recordings right"):
        calibrated(blank, same)


def test_paths_that_hardly_differ_in_the_picture_give_no_detector():
    scenes = made_scenes("trajectory")
    alike = dataclasses.replace(scenes, twin_truth=scenes.truth + 0.02 * (scenes.twin_truth - scenes.truth))
    assert int(readable(scenes).sum()) == len(scenes)
    assert not readable(alike).any()
    with pytest.raises(BenchmarkError, match=r"reads 0\.0% of the recordings right"):
        calibrated(alike, same)


def test_a_colour_of_one_scene_cannot_be_judged():
    with pytest.raises(BenchmarkError, match="take more scenes"):
        calibrated(made_scenes("appearance", 2), same)
