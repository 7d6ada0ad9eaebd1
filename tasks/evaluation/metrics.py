"""Figures of a generated video beside the true one (paper, Tables 1 and 2), each a frame and a view (trap 34)."""

from __future__ import annotations

import torch

from model import mosaic

CONVENTION = (
    "PSNR, SSIM and LPIPS are taken per frame and per view (views cut from the mosaic after decoding), RGB in [0, 1], "
    "data_range 1, not rounded to 8 bits, at the size the model sees; frame 0, which is given, is left out; then the "
    "mean over frames, views, agents and windows. PSNR is 60 dB at most (less than an 8-bit step), so that a frame "
    "without any motion does not make a mean infinite. SSIM: Gaussian window, sigma 1.5, 11 x 11. LPIPS: AlexNet. "
    "Temporal flickering as VBench: (255 - mean |f_i - f_i+1|) / 255 over neighbouring frames from frame 1 on; it "
    "rewards a picture that stands still, so read it beside the ground truth's."
)
HIGHEST_DB = 60.0
GIVEN_FRAMES = 1
"""Frames at the beginning that the model is given: they are not scored."""


def views_of(video: torch.Tensor) -> torch.Tensor:
    """Cut mosaics [N, A, 3, T, H, W] in [-1, 1] into views [N, A, 4, T, 3, h, w] in [0, 1]."""
    frames = (video.float().clamp(-1, 1) + 1) / 2
    return mosaic.split(frames.transpose(2, 3)).movedim(-4, 2)


def front_of(video: torch.Tensor) -> torch.Tensor:
    """Return single views [N, A, 3, T, H, W] in [-1, 1] as [N, A, 1, T, 3, H, W] in [0, 1]."""
    return ((video.float().clamp(-1, 1) + 1) / 2).transpose(2, 3)[:, :, None]


def psnr(generated: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio in dB, [...], of frames [..., 3, h, w] in [0, 1]; HIGHEST_DB at most."""
    rows = torch.linalg.vector_norm(generated - truth, dim=-1).double()  # float32 holds a row's sum, not a frame's
    error = rows.square().mean((-2, -1)) / truth.shape[-1]
    return (-10 * error.log10()).clamp(max=HIGHEST_DB).float()


def temporal_flickering(video: torch.Tensor) -> torch.Tensor:
    """Return VBench's temporal flickering, [..., T-1], of a video [..., T, 3, h, w] in [0, 1]."""
    return 1 - (video[..., 1:, :, :, :] - video[..., :-1, :, :, :]).abs().mean((-3, -2, -1))
