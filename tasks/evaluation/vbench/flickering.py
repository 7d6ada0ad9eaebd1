"""Temporal flickering without VBench: it needs no weights (VBench, CVPR 2024, section 3.2.1; trap 35: motion is
punished)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from tasks.evaluation.vbench.errors import VBenchError


def frames_as_opencv(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames [h, w, 3] uint8 BGR as OpenCV decodes them, which VBench does here.

    OpenCV takes every YUV video for BT.601, whatever its tags say; RGB videos are read as they are.
    """
    with av.open(str(path), "r") as container:
        for frame in container.decode(video=0):
            yield frame.reformat(format="bgr24", src_colorspace="default").to_ndarray()


def frame_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean absolute difference of two frames [h, w, 3] uint8, in grey levels."""
    return float(np.abs(first.astype(np.int16) - second).mean())


def file_flickering(path: Path) -> float:
    """Return (255 - mae) / 255 of a video file: mae is the mean absolute difference of neighbouring frames.

    1 for a picture that stands still; egomotion lowers it. VBenchError for a video of fewer than two frames or none.
    """
    try:
        differences = [frame_difference(*pair) for pair in pairwise(frames_as_opencv(path))]
    except (av.FFmpegError, IndexError) as error:
        raise VBenchError(f"{path} is no video that can be read ({error}): give .mp4 files.") from error
    if not differences:
        raise VBenchError(f"{path} has fewer than two frames, so it has no flickering: give a video.")
    return (255.0 - float(np.mean(differences))) / 255.0
