"""What the model sees of a stored clip, to the bit: the latents' key does not follow the code that prepares it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model import mosaic
from model.presets import Preset
from tasks.encoding.frames import model_video


@pytest.fixture(scope="module")
def frames():
    """Mosaics [2, 5, 64, 96, 3] uint8 that hold every value."""
    return np.random.default_rng(0).integers(0, 256, (2, 5, 64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (32, 48), (16, 32)])
@pytest.mark.parametrize("views", ["four", "front"])
def test_the_views_are_shrunk_one_by_one_then_scaled(frames, size, views):
    height, width = size
    video = Preset.load("tiny").replace(height=height, width=width, views=views).video
    stored = mosaic.split(torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float())
    if views == "front":
        wanted = F.interpolate(stored[:, :, 0].flatten(0, 1), (height, width), mode="area").unflatten(0, (2, 5))
    else:
        small = F.interpolate(stored.flatten(0, 2), (height // 2, width // 2), mode="area")
        wanted = mosaic.assemble(small.unflatten(0, (2, 5, 4)))
    found = model_video(frames, video)
    assert torch.equal(found, (wanted / 127.5 - 1).transpose(1, 2))
    assert found.dtype == torch.float32
    assert found.is_contiguous()


def test_a_part_of_a_clip_is_left_as_it_is(frames):
    video = Preset.load("tiny").replace(height=64, width=96).video
    before = frames.copy()
    assert torch.equal(model_video(frames[:, 1:4], video), model_video(frames, video)[:, :, 1:4])
    assert np.array_equal(frames, before)
