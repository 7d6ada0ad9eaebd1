"""What may enter, what it must give, and the entries that know and that cannot know."""

from __future__ import annotations

import pytest
import torch

from tasks.benchmark.entries import CopyFirstFrame, Entry, GroundTruth, Warping, generated
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.score import score_entry, with_partner
from tasks.benchmark.warping import warp


class Giving(Entry):
    """Gives what it was made with."""

    name = "giving"

    def __init__(self, videos: torch.Tensor) -> None:
        self.videos = videos

    def generate(self, first, K, c2w, names):
        return self.videos


def given(scenes):
    return scenes.first, scenes.K, scenes.c2w, scenes.names


def test_videos_of_another_shape_or_range_are_refused(scenes):
    shape = scenes.truth.shape
    with pytest.raises(BenchmarkError, match=r"entry 'giving' gave \(12, 2, 3, 8, 32, 48\): it must give"):
        generated(Giving(torch.zeros(*shape[:3], 8, *shape[4:])), *given(scenes))
    with pytest.raises(BenchmarkError, match=r"gave values up to 255: videos must lie in \[-1, 1\]"):
        generated(Giving(torch.full(shape, 255.0)), *given(scenes))
    with pytest.raises(BenchmarkError, match="values up to nan"):
        generated(Giving(torch.full(shape, torch.nan)), *given(scenes))
    with pytest.raises(BenchmarkError, match="gave list"):
        generated(Giving([1]), *given(scenes))
    assert torch.equal(generated(Giving(scenes.truth), *given(scenes)), scenes.truth)


def test_the_first_frame_stands_still(scenes):
    videos = generated(CopyFirstFrame(), *given(scenes))
    assert torch.equal(videos[:, :, :, 7], scenes.first)


def test_ground_truth_follows_the_partners_twin(scenes):
    entry = GroundTruth(scenes)
    assert torch.equal(generated(entry, *given(scenes)), scenes.truth)
    first = with_partner(scenes, scenes.twin_first)
    assert torch.equal(generated(entry, first, scenes.K, scenes.twin_c2w, scenes.names), scenes.twin_truth)


def test_only_the_partners_picture_shows_the_fact(scenes, detector):
    both = score_entry(Warping(scenes, both=True), scenes, detector).metrics()
    own = score_entry(Warping(scenes, both=False), scenes, detector).metrics()
    assert both["accuracy"] >= 0.9
    assert both["follows"] >= 0.9
    assert own["accuracy"] <= 0.45
    assert own["exact_change"] == 0.0
    assert both["psnr_fact"] > own["psnr_fact"] + 3


def test_a_camera_that_stands_still_is_given_its_own_picture(scenes):
    still = scenes.c2w[0, :, :, :1].expand(-1, -1, 9, -1, -1)
    depth = scenes.depth_m[0, :, :1].expand(-1, 9, -1, -1)
    videos = warp(scenes.first[0], scenes.K[0], still, depth, both=False)
    assert torch.equal(videos, scenes.first[0][:, :, None].expand_as(videos))


def test_a_turned_camera_sees_what_another_view_saw(scenes):
    """The front camera turned by 90 degrees to the right shows what the right camera showed."""
    c2w = scenes.c2w[0].clone()
    depth = scenes.depth_m[0].clone()
    c2w[0, 0, 1] = c2w[0, 3, 0]
    depth[0, 1, :16, :24] = depth[0, 0, 16:, 24:]
    video = warp(scenes.first[0], scenes.K[0], c2w, depth, both=False)[0]
    assert torch.equal(video[:, 1, :16, :24], scenes.first[0, 0, :, 16:, 24:])
