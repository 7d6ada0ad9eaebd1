"""Figures of a generated video beside the true one (paper, Tables 1 and 2), each a frame and a view (trap 34)."""

from __future__ import annotations

import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from model import mosaic

CONVENTION = (
    "PSNR, SSIM and LPIPS are taken per frame and per view (views cut from the mosaic after decoding), RGB in [0, 1], "
    "data_range 1, not rounded to 8 bits, at the size the model sees; frame 0, which is given, is left out; then the "
    "mean over frames, views, agents and windows. PSNR is 60 dB at most (less than an 8-bit step), so that a frame "
    "without any motion does not make a mean infinite. SSIM: Gaussian window, sigma 1.5, 11 x 11. LPIPS: AlexNet. "
    "Temporal flickering as VBench: (255 - mean |f_i - f_i+1|) / 255 over neighbouring frames from frame 1 on; it "
    "rewards a picture that stands still, so read it beside the ground truth's."
)
WINDOW_PX, WINDOW_SIGMA_PX = 11, 1.5
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
    pairs = generated.flatten(0, -4), truth.flatten(0, -4)
    values = peak_signal_noise_ratio(*pairs, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=HIGHEST_DB).view(truth.shape[:-3])


def smooth(x: torch.Tensor) -> torch.Tensor:
    """Return Gaussian means [..., h - 10, w - 10] of x [..., h, w], where the window lies wholly inside.

    Sums of shifted pictures: on a CPU much faster than a convolution of one channel.
    """
    taps = torch.exp(-0.5 * (torch.arange(WINDOW_PX) - WINDOW_PX // 2).double().div(WINDOW_SIGMA_PX).square())
    weights: list[float] = (taps / taps.sum()).tolist()
    for axis in (-2, -1):
        size = x.shape[axis] - WINDOW_PX + 1
        total = weights[0] * x.narrow(axis, 0, size)
        for place, weight in enumerate(weights[1:], start=1):
            total.add_(x.narrow(axis, place, size), alpha=weight)
        x = total
    return x


def ssim(generated: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity (Wang et al. 2004), [...], of frames [..., 3, h, w] in [0, 1], sides >= 11.

    Equal to scikit-image's (tested). What the true frame has in the mean is taken off before squaring: float32 would
    lose faint contrast on a bright ground.
    """
    level = truth.mean((-2, -1), keepdim=True)
    generated, truth = generated - level, truth - level
    mean_g, mean_t = smooth(generated), smooth(truth)
    var_g, var_t = smooth(generated.square()) - mean_g.square(), smooth(truth.square()) - mean_t.square()
    covariance = smooth(generated * truth) - mean_g * mean_t
    mean_g, mean_t = mean_g + level, mean_t + level
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_g * mean_t + c1) / (mean_g.square() + mean_t.square() + c1)
    return (luminance * (2 * covariance + c2) / (var_g + var_t + c2)).mean((-3, -2, -1))


def temporal_flickering(video: torch.Tensor) -> torch.Tensor:
    """Return VBench's temporal flickering, [..., T-1], of a video [..., T, 3, h, w] in [0, 1]."""
    return 1 - (video[..., 1:, :, :, :] - video[..., :-1, :, :, :]).abs().mean((-3, -2, -1))
