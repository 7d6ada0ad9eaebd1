"""Rollouts over a recording: clips are joined as they follow each other, figures come window by window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.evaluation.report.write import latents_dir_of
from tasks.evaluation.scoring import scores as names
from tasks.evaluation.scoring.rollouts import joined, score_rollouts
from tasks.evaluation.scoring.sampling import Sampler
from tasks.evaluation.scoring.score import scored_views
from tasks.evaluation.scoring.scores import Scores
from tasks.evaluation.scoring.shared_world import SharedWorld
from tasks.evaluation.scoring.windows import Windows
from tasks.sharding.reader import ClipIndex, ClipPairs


def test_a_rollout_goes_over_the_whole_recording(run):
    sampler = Sampler.of_checkpoint(run.preset, run.latest_checkpoint(), latents_dir_of(run))
    windows = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("test"), run.preset)
    scores = Scores(None)
    world = SharedWorld(windows, scores)
    assert score_rollouts(sampler, windows, scores, world, lambda video: scored_views(video, run.preset)) == {}
    figures = {"rollout_psnr_1", "rollout_psnr_2", "rollout_sharpness_1", "rollout_sharpness_2", "rollout_drift"}
    for row in (names.ONE_STEP, names.FULL_STEPS):
        assert figures == {name for name in scores.metrics(row) if "other" not in name}
    assert scores.mean(names.CODEC, "rollout_sharpness_2") == pytest.approx(1)
    assert scores.mean(names.ONE_STEP, "rollout_psnr_1") != scores.mean(names.FULL_STEPS, "rollout_psnr_1")
    recordings = len({row["recording_id"] for row in windows.rows.values()})
    assert len(scores.arrays[names.COPY, "rollout_drift"]) == recordings
    recall = [scores.mean(names.GROUND_TRUTH, f"rollout_other_recall_{number}") for number in (1, 2)]
    assert min(recall) >= 0.8
    assert "rollout_psnr_1" not in scores.metrics(names.GROUND_TRUTH)


@pytest.fixture
def clip(run):
    """A clip of 17 frames that starts at tick 0, three ticks a frame."""
    pair = ClipPairs(run.dataset_dir, "test")[0]
    frames = np.arange(17, dtype=np.uint8)
    videos = np.broadcast_to(frames[None, :, None, None, None], pair.videos.shape)
    return replace(pair, meta=pair.meta | {"window": 0, "stride": 3}, videos=videos)


def at(clip, window):
    """The same clip, started at another tick: its frames show their own tick."""
    return replace(clip, meta=clip.meta | {"window": window}, videos=clip.videos + np.uint8(100))


def test_the_clip_that_leads_farthest_goes_on_from_the_nearest_frame(clip):
    """After tick 48 comes 51. A clip from 20 on holds 50 (frame 10) and leads to 68, one from 34 on 52 (frame 6) and
    leads to 82."""
    whole = joined([at(clip, 34), clip, at(clip, 20)])
    assert whole.videos[0, :, 0, 0, 0].tolist() == [*range(17), *range(106, 117)]
    assert whole.cameras.c2w.shape[2] == whole.cameras.agent_pose.shape[1] == len(whole.cameras.time_s) == 28
    np.testing.assert_array_equal(whole.cameras.c2w[:, :, 17:], clip.cameras.c2w[:, :, 6:])
    step = clip.cameras.time_s[1]
    assert np.diff(whole.cameras.time_s).tolist() == pytest.approx([*[step] * 16, step * 4 / 3, *[step] * 10])
    assert (whole.depth_m is None) == (clip.depth_m is None)


@pytest.mark.parametrize("windows", [(53,), ()])
def test_a_clip_that_nothing_follows_stays_alone(clip, windows):
    """After tick 48 comes 51, which is more than half a step before 53."""
    assert joined([clip, *(at(clip, window) for window in windows)]).videos.shape == clip.videos.shape


def test_a_converted_clip_without_ticks_stays_alone(clip):
    alone = replace(clip, meta={key: value for key, value in clip.meta.items() if key not in ("window", "stride")})
    assert joined([alone]).videos.shape == clip.videos.shape


def test_without_ground_truth_in_every_clip_there_is_none(clip):
    assert joined([clip, replace(at(clip, 51), instance=None)]).instance is None
