"""Stored clips as the model sees them: its views, its size, [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch

from model import mosaic
from model.presets import VideoConfig


def model_video(frames: np.ndarray, video: VideoConfig) -> torch.Tensor:
    """Return [A, 3, T, height, width] float32 in [-1, 1] of stored mosaics [A, T, H, W, 3] uint8.

    Shrunk view by view, so that no pixel mixes two views (trap 22: tokens straddle views); the front view alone for
    views "front".
    """
    pixels = torch.from_numpy(frames.transpose(0, 4, 1, 2, 3).astype(np.float32, order="C"))
    if video.views == "front":
        views = mosaic.split(pixels)[..., 0, :, :, :]
        size = (video.height, video.width)
        pixels = torch.nn.functional.interpolate(views.flatten(0, 1), size, mode="area").unflatten(0, views.shape[:2])
    else:
        pixels = mosaic.resize(pixels, video.height, video.width)
    return pixels.div_(127.5).sub_(1)


def window_starts(clip_frames: int, frames: int, stride: int) -> list[int]:
    """Return where windows of `frames` start in a clip; stride 0: only at its beginning. ValueError if none fits."""
    if frames > clip_frames:
        raise ValueError(f"the model takes {frames} frames and the clips have {clip_frames}: record longer clips.")
    return list(range(0, clip_frames - frames + 1, stride)) if stride else [0]
