"""Structural similarity in one pass over a picture: nothing but a row is kept, so it costs about what decoding does."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from tasks.evaluation.measures.metrics import by_channel

WINDOW_PX, WINDOW_SIGMA_PX = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
OFFSETS = np.arange(WINDOW_PX) - WINDOW_PX // 2
TAPS = np.exp(-0.5 * (OFFSETS / WINDOW_SIGMA_PX) ** 2)
TAPS = (TAPS / TAPS.sum()).astype(np.float32)


def ssim(generated: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity (Wang et al. 2004), [...], of frames [..., 3, h, w] in [0, 1], sides >= 11.

    The mean over the channels and the places where the Gaussian window lies wholly inside. Equal to scikit-image's
    (tested).
    """
    height, width = truth.shape[-2:]
    if min(height, width) < WINDOW_PX:
        raise ValueError(f"SSIM needs frames of {WINDOW_PX} pixels and more a side, not {height}x{width}.")
    return by_channel(similarity, generated, truth).mean(-1).float()


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def similarity(generated: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over pictures [h, w] float32.

    What the true picture has in the mean is taken off before squaring: float32 would lose faint contrast on a bright
    ground. Of the two variances only the sum is needed.
    """
    height, width = truth.shape
    wide, high = width - WINDOW_PX + 1, height - WINDOW_PX + 1
    turned = np.empty_like(TAPS)
    rows = np.empty((4, WINDOW_PX, width), np.float32)  # the last eleven: generated, true, their squares, their product
    across = np.empty((4, width), np.float32)
    c1, c2, two = np.float32(C1), np.float32(C2), np.float32(2)
    level = np.float32(truth.mean())
    total = 0.0
    for y in range(height):
        place = y % WINDOW_PX
        for x in range(width):
            g, t = generated[y, x] - level, truth[y, x] - level
            rows[0, place, x], rows[1, place, x], rows[2, place, x], rows[3, place, x] = g, t, g * g + t * t, g * t
        if y < WINDOW_PX - 1:
            continue
        for k in range(WINDOW_PX):
            turned[k] = TAPS[(k - y - 1) % WINDOW_PX]
        for kind in range(4):
            for x in range(width):
                value = np.float32(0)
                for k in range(WINDOW_PX):
                    value += turned[k] * rows[kind, k, x]
                across[kind, x] = value
        line = np.float32(0)
        for x in range(wide):
            g = t = squares = product = np.float32(0)
            for k in range(WINDOW_PX):
                g += TAPS[k] * across[0, x + k]
                t += TAPS[k] * across[1, x + k]
                squares += TAPS[k] * across[2, x + k]
                product += TAPS[k] * across[3, x + k]
            variances, covariance = squares - g * g - t * t, product - g * t
            g, t = g + level, t + level
            luminance = (two * g * t + c1) / (g * g + t * t + c1)
            line += luminance * (two * covariance + c2) / (variances + c2)
        total += float(line)
    return total / (wide * high)
