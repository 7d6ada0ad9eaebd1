"""Figures of a generated video beside the true one (paper, Tables 1 and 2), each a frame and a view (trap 34: metric
conventions differ)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numba import njit

from model import mosaic

CONVENTION = (
    "PSNR, SSIM and LPIPS are taken per frame and per view (views cut from the mosaic after decoding), RGB in [0, 1], "
    "data_range 1, not rounded to 8 bits, at the size the model sees; frame 0, which is given, is left out; then the "
    "mean over frames, views, agents and windows. PSNR is 60 dB at most (less than an 8-bit step), so that a frame "
    "without any motion does not make a mean infinite. SSIM: Gaussian window, sigma 1.5, 11 x 11. LPIPS: AlexNet. "
    "Temporal flickering as VBench: (255 - mean |f_i - f_i+1|) / 255 over neighbouring frames from frame 1 on; it "
    "rewards a picture that stands still, so read it beside the ground truth's. Sharpness: mean absolute difference of "
    "neighbouring pixels, over that of the codec's round trip of the same window; fog is below 1, noise above, and "
    "PSNR rewards fog, so read the two together."
)
HIGHEST_DB = 60.0
GIVEN_FRAMES = 1
"""Frames at the beginning that the model is given: they are not scored."""


def views_of(video: torch.Tensor) -> torch.Tensor:
    """Cut mosaics [N, A, 3, T, H, W] in [-1, 1] into views [N, A, 4, T, 3, h, w] in [0, 1]."""
    views = mosaic.split(video.float().transpose(2, 3))  # a copy: it may be written into
    return views.clamp_(-1, 1).add_(1).div_(2).movedim(-4, 2)


def front_of(video: torch.Tensor) -> torch.Tensor:
    """Return single views [N, A, 3, T, H, W] in [-1, 1] as [N, A, 1, T, 3, H, W] in [0, 1]."""
    return video.float().clamp(-1, 1).add_(1).div_(2).transpose(2, 3)[:, :, None]


def psnr(generated: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio in dB, [...], of frames [..., 3, h, w] in [0, 1]; HIGHEST_DB at most."""
    error = by_channel(squared_error, generated, truth).mean(-1)
    return (-10 * error.log10()).clamp(max=HIGHEST_DB).float()


def by_channel(
    kernel: Callable[[np.ndarray, np.ndarray], float], generated: torch.Tensor, truth: torch.Tensor
) -> torch.Tensor:
    """Return what a kernel says of each channel [h, w] of frames [..., 3, h, w] in float32: [..., 3] float64.

    One channel at a time: frames need not lie together, and no copy of them is made. ValueError for unequal shapes.
    """
    if generated.shape != truth.shape:
        raise ValueError(f"frames of shape {tuple(generated.shape)} are compared with {tuple(truth.shape)}")
    ours, theirs = (frames.float().cpu().numpy() for frames in (generated, truth))
    found = [kernel(ours[place], theirs[place]) for place in np.ndindex(theirs.shape[:-2])]
    return torch.tensor(found, dtype=torch.float64, device=truth.device).view(truth.shape[:-2])


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def squared_error(generated: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean squared difference of pictures [h, w]: float32 holds a row's sum, not a picture's."""
    height, width = truth.shape
    total = 0.0
    for y in range(height):
        row = np.float32(0)
        for x in range(width):
            difference = generated[y, x] - truth[y, x]
            row += difference * difference
        total += float(row)
    return total / (height * width)


def detail(video: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of horizontal and of vertical neighbours, summed, [...], of frames
    [..., 3, h, w] in [0, 1]: what is sharp or noisy has much."""
    across = (video[..., :, 1:] - video[..., :, :-1]).abs().mean((-3, -2, -1))
    down = (video[..., 1:, :] - video[..., :-1, :]).abs().mean((-3, -2, -1))
    return across + down


def temporal_flickering(video: torch.Tensor) -> torch.Tensor:
    """Return VBench's temporal flickering, [..., T-1], of a video [..., T, 3, h, w] in [0, 1]."""
    return 1 - (video[..., 1:, :, :, :] - video[..., :-1, :, :, :]).abs().mean((-3, -2, -1))
