"""What costs nothing: the first frame stands still, sharp or blurred. A model that is no better has learned nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from tasks.evaluation.measures.metrics import GIVEN_FRAMES, psnr

SIGMAS_PX = tuple(step / 2 for step in range(13))
"""Candidates for the blur: 0 to 6 pixels of a view as the model sees it."""


def copy_first_frame(views: torch.Tensor) -> torch.Tensor:
    """Return views [N, A, V, T, 3, h, w] with frame 0 in place of every frame."""
    return views[..., :1, :, :, :].expand_as(views)


def blurred_first_frame(views: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Return views [N, A, V, T, 3, h, w] with frame 0, blurred by a Gaussian of sigma_px, in place of every frame."""
    first = views[..., :1, :, :, :].numpy()
    blurred = gaussian_filter(first, (0,) * (first.ndim - 2) + (sigma_px, sigma_px), mode="nearest")
    return torch.from_numpy(blurred).expand_as(views)


def choose_sigma(batches: Iterable[torch.Tensor]) -> float:
    """Return the sigma of SIGMAS_PX with the best mean PSNR on training views, each [N, A, V, T, 3, h, w].

    One batch at a time is held.
    """
    sums = np.zeros(len(SIGMAS_PX))
    for views in batches:
        sums += [float(psnr(blurred_first_frame(views, s), views)[..., GIVEN_FRAMES:].sum()) for s in SIGMAS_PX]
    return SIGMAS_PX[int(sums.argmax())]
