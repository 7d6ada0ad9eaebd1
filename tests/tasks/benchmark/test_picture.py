"""The explaining picture shows the right scenes, places and verdicts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tasks.benchmark.detector import calibrated
from tasks.benchmark.entries import CopyFirstFrame, GroundTruth
from tasks.benchmark.picture import (
    GREEN,
    GREY,
    RED,
    cells,
    changed_box,
    chosen,
    columns_of,
    explaining_picture,
    sight_of,
)
from tasks.benchmark.score import score_entry
from tests.painted_world import FACE_ID, Scene
from tests.tasks.benchmark.made_scenes import made_scenes


@pytest.fixture(scope="module")
def outcomes(scenes, detector):
    return score_entry(GroundTruth(scenes), scenes, detector), score_entry(CopyFirstFrame(), scenes, detector)


def test_scenes_show_the_fact_large_and_in_several_colours(scenes):
    places = chosen(scenes, 3)
    assert len({int(scenes.labels[place, 0]) for place in places}) == 3
    pixels = [sight_of(scenes, place).pixels for place in range(len(scenes))]
    assert pixels[places[0]] == max(pixels)


def test_frames_mark_where_the_fact_is(scenes):
    place = chosen(scenes, 1)[0]
    sight = sight_of(scenes, place)
    top, left = 16 * (sight.view // 2), 24 * (sight.view % 2)
    shown = scenes.masks[place, 0, sight.frame, top : top + 16, left : left + 24].numpy()
    x0, y0, x1, y1 = sight.box
    assert shown.sum() == sight.pixels == shown[y0:y1, x0:x1].sum()
    number = [int(name) for name in np.arange(12)][place]
    ids = Scene(np.random.default_rng([0, True, number])).paint(0)[2][1, 0]
    view, (x0, y0, x1, y1) = changed_box(scenes, place)
    top, left = 16 * (view // 2), 24 * (view % 2)
    face = ids[top : top + 16, left : left + 24] == FACE_ID
    assert face[max(y0, 0) : y1, x0:x1].sum() >= 0.9 * face.sum() > 0


def test_verdicts_are_the_detectors(scenes, outcomes):
    truth, still = outcomes
    place = chosen(scenes, 1)[0]
    found = cells(scenes, truth, still, place)
    assert [found[column][1:] for column in (3, 6)] == [("right", GREEN), ("right: follows the change", GREEN)]
    assert found[4][2] in (RED, GREY)
    assert np.array_equal(np.asarray(found[2][0]), np.asarray(found[3][0]))
    assert not np.array_equal(np.asarray(found[2][0]), np.asarray(found[4][0]))
    assert not np.array_equal(np.asarray(found[1][0]), np.asarray(found[5][0]))


def test_the_sheet_is_wide_enough_for_its_columns(scenes, outcomes):
    sheet = explaining_picture(scenes, *outcomes, count=2)
    one = explaining_picture(scenes, *outcomes, count=1)
    assert sheet.width == one.width > 7 * 240
    assert sheet.height - one.height > 160
    assert len(set(np.asarray(sheet)[300].reshape(-1, 3).astype(int) @ [65536, 256, 1])) > 20


def test_a_path_is_no_picture_in_a_first_frame():
    scenes = made_scenes("trajectory")
    alike = dataclasses.replace(
        scenes, twin_truth=torch.cat([scenes.truth[:, :, :, :1], scenes.twin_truth[:, :, :, 1:]], 3)
    )
    assert changed_box(alike, 0) is None
    titles = [" ".join(column) for column in columns_of(alike)]
    assert not [title for title in titles if "hidden" in title or "framed" in title]
    assert [title for title in map(" ".join, columns_of(made_scenes("binding"))) if "framed" in title]
    detector = calibrated(alike, lambda videos: videos)
    explaining_picture(
        alike, score_entry(GroundTruth(alike), alike, detector), score_entry(CopyFirstFrame(), alike, detector)
    )
