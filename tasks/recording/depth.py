"""Depth as it is stored: centimetres along the camera's axis in 16 bits."""

from __future__ import annotations

import numpy as np

FAR = 65535
"""Code of everything farther than 655.34 m."""


def depth_cm(bgra: np.ndarray) -> np.ndarray:
    """Return [h, w] uint16 depth along the camera's axis in centimetres; 65535 = farther than 655.34 m."""
    code = (
        bgra[..., 2].astype(np.uint32) + bgra[..., 1].astype(np.uint32) * 256 + bgra[..., 0].astype(np.uint32) * 65536
    )
    centimetres = np.rint(code * (100_000.0 / (2**24 - 1)))
    return np.where(centimetres >= FAR, FAR, centimetres).astype(np.uint16)


def metres(code: np.ndarray) -> np.ndarray:
    """Return float32 metres of stored codes uint16; inf for FAR."""
    return np.where(code == FAR, np.inf, code / 100).astype(np.float32)
