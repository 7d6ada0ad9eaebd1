"""What costs nothing, and the windows it is scored on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from model.presets import Preset
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.metrics import HIGHEST_DB, psnr, temporal_flickering, views_of
from tasks.evaluation.scoring.baselines import SIGMAS_PX, blurred_first_frame, choose_sigma, copy_first_frame
from tasks.evaluation.scoring.windows import Windows
from tasks.sharding.reader import ClipIndex, ClipPairs


def moving_noise(shift: int) -> torch.Tensor:
    """Views [1, 1, 1, T, 3, 24, 36] of a texture that moves `shift` pixels a frame."""
    texture = gaussian_filter(np.random.default_rng(0).normal(size=(3, 24, 60)), (0, 1, 1))
    texture = (texture - texture.min()) / np.ptp(texture)
    frames = [texture[:, :, shift * t : shift * t + 36] for t in range(4)]
    return torch.from_numpy(np.stack(frames)).float()[None, None, None]


def test_copying_a_still_scene_is_perfect_and_never_flickers():
    still = moving_noise(0)
    assert (psnr(copy_first_frame(still), still) == HIGHEST_DB).all()
    moving = moving_noise(5)
    assert (psnr(copy_first_frame(moving), moving)[..., 1:] < 30).all()
    assert (temporal_flickering(copy_first_frame(moving)) == 1).all()


def test_the_blur_stays_in_its_view_and_keeps_its_mean():
    views = torch.zeros(1, 1, 2, 3, 3, 16, 16)
    views[:, :, 0] = 1
    blurred = blurred_first_frame(views, 3.0)
    torch.testing.assert_close(blurred, views)
    impulse = torch.zeros(1, 1, 1, 2, 3, 33, 33)
    impulse[..., 16, 16] = 1
    blurred = blurred_first_frame(impulse, 2.0)
    torch.testing.assert_close(blurred.sum((-1, -2)), torch.ones(1, 1, 1, 2, 3))
    assert float(blurred[0, 0, 0, 0, 0, 16, 16]) == pytest.approx(1 / (2 * np.pi * 4), rel=0.02)


def test_sigma_is_zero_for_still_scenes_and_larger_for_motion():
    assert choose_sigma([moving_noise(0)]) == 0
    chosen = choose_sigma([moving_noise(5), moving_noise(7)])
    assert chosen in SIGMAS_PX
    assert chosen > 1


def test_windows_tile_a_clip_and_hold_its_pixels_and_cameras(run):
    rows = ClipIndex(run.dataset_dir).split("test")
    windows = Windows(run.dataset_dir, rows, run.preset)
    assert [(window.row["key"], window.start) for window in windows] == [
        (row["key"], start) for row in rows for start in (0, 8)
    ]
    video = windows.video([1, 2])
    assert video.shape == (2, 2, 3, 9, 32, 48)
    stored = ClipPairs(run.dataset_dir, "test")[0].videos[:, 8:]  # the window at start 8 of the first clip
    means = torch.from_numpy(stored.reshape(2, 9, 2, 32, 2, 48, 3).mean((3, 5)) / 127.5 - 1)
    torch.testing.assert_close(
        video[0].reshape(2, 3, 9, 2, 16, 2, 24).mean((4, 6)).permute(0, 2, 3, 4, 1).double(), means, atol=1e-5, rtol=0
    )
    first, later = windows.raymaps([0, 1])
    assert first.shape == (2, 3, 24, 4, 6)
    assert not torch.equal(first, later)
    assert not torch.equal(first[0], first[1])
    torch.testing.assert_close(windows.raymaps([0], swapped=True)[0], first.flip(0))
    assert views_of(video).shape == (2, 2, 4, 9, 3, 16, 24)


def test_too_short_clips_are_named(run):
    rows = ClipIndex(run.dataset_dir).split("test")
    with pytest.raises(EvaluationError, match=rf"clip {rows[0]['key']} cannot be scored.*49 frames.*have 17"):
        Windows(run.dataset_dir, rows, Preset.load("tiny").replace(frames=49))


def test_sight_is_the_other_cars_share_of_the_picture(run):
    """Recomputed from the stored instance ids: agent 0 sees id 2, agent 1 sees id 1."""
    pair = ClipPairs(run.dataset_dir, "test")[0]
    windows = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("test"), run.preset)
    shares = [float((pair.instance[agent, 8:17] == 2 - agent).mean()) for agent in (0, 1)]
    assert windows.mutual_sight(1) == pytest.approx(min(shares))
    assert windows.mutual_sight(1) > 0
    trained = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("train"), run.preset)
    assert trained.mutual_sight(0) == 0
