"""Drift: how fast does a long video get worse when each window goes on from the last frame of the one before?

Definition: a rollout of n windows of the model's length over one clip; `rollout_psnr_k` is the mean PSNR (as in Table
1: per frame and view, then the mean) of the frames that window k = 1..n adds, `rollout_drift` the PSNR of the first
minus that of the last window, dB.
Range: 0..60 dB; a drift of 0 is none, the codec's and the copied first frame's stand beside: the latter shows how much
harder the later frames are.
Failure cases: scenes differ in how much moves late, so compare drifts on the same clips only; a video that collapses at
once does not drift.
Source: what long-video papers plot; the paper shows one window only. Windows as in `ShareVersePipeline.rollout`.
"""

from __future__ import annotations

import torch

from tasks.evaluation.measures.metrics import psnr


def by_window(video: torch.Tensor, truth: torch.Tensor, frames: int) -> list[float]:
    """Return the PSNR of each window of `frames` frames of views [A, V, T, 3, h, w] in [0, 1], T = n (frames - 1) + 1.

    ValueError for another length.
    """
    windows, rest = divmod(truth.shape[2] - 1, frames - 1)
    if rest or not windows:
        raise ValueError(f"a rollout of {truth.shape[2]} frames is no whole number of windows of {frames}")
    scores = psnr(video[:, :, 1:], truth[:, :, 1:])
    return [float(part.mean()) for part in scores.chunk(windows, 2)]


def figures(video: torch.Tensor, truth: torch.Tensor, frames: int) -> dict[str, float]:
    """Return rollout_psnr_1..n and rollout_drift."""
    values = by_window(video, truth, frames)
    return {f"rollout_psnr_{number}": value for number, value in enumerate(values, 1)} | {
        "rollout_drift": values[0] - values[-1]
    }
