"""Drift: how fast does a long video get worse when each window goes on from the last frame of the one before?

Definition: a rollout of n windows of the model's length over one clip; `rollout_psnr_k` is the mean PSNR (as in Table
1: per frame and view, then the mean) of the frames that window k = 1..n adds, `rollout_drift` the PSNR of the first
minus that of the last window, dB; `rollout_sharpness_k` their sharpness beside the codec's round trip of the same
frames; rollout_other_recall_k and rollout_other_bearing_deg_k say the same of the other car (localisation.py), where a
recording has instance ids.
Range: 0..60 dB; a drift of 0 is none, the codec's and the copied first frame's stand beside: the latter shows how much
harder the later frames are.
Failure cases: scenes differ in how much moves late, so compare drifts on the same clips only; a video that collapses at
once does not drift.
Source: what long-video papers plot; the paper shows one window only. Windows as in `ShareVersePipeline.rollout`.
"""

from __future__ import annotations

import torch

from tasks.evaluation.measures.metrics import detail, psnr

BY_WINDOW = ("rollout_psnr", "rollout_sharpness", "rollout_other_recall", "rollout_other_bearing_deg")
"""Figures that come window by window: each of these with _1, _2, ..."""


def by_window(values: torch.Tensor, frames: int) -> list[float]:
    """Return the mean of what each window adds, of values [A, V, T-1] of the frames after the first, T = n (frames - 1)
    + 1.

    ValueError for another length.
    """
    windows, rest = divmod(values.shape[2], frames - 1)
    if rest or not windows:
        raise ValueError(f"a rollout of {values.shape[2] + 1} frames is no whole number of windows of {frames}")
    return [float(part.mean()) for part in values.chunk(windows, 2)]


def figures(video: torch.Tensor, truth: torch.Tensor, codec: torch.Tensor, frames: int) -> dict[str, float]:
    """Return rollout_psnr_1..n, rollout_sharpness_1..n and rollout_drift of views [A, V, T, 3, h, w] in [0, 1], beside
    the true ones and their round trip through the codec."""
    scores = by_window(psnr(video[:, :, 1:], truth[:, :, 1:]), frames)
    ours, theirs = (by_window(detail(views[:, :, 1:]), frames) for views in (video, codec))
    sharpness = [mine / its for mine, its in zip(ours, theirs, strict=True)]
    named = {"rollout_psnr": scores, "rollout_sharpness": sharpness}
    return {f"{name}_{number}": value for name, values in named.items() for number, value in enumerate(values, 1)} | {
        "rollout_drift": scores[0] - scores[-1]
    }
