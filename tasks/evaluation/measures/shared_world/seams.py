"""Seam continuity: do the four views of one mosaic fit together where they meet?

Definition: the views are 90 degrees wide and look in four directions, so the last column of one and the first column of
the next look nearly the same way. `seam_correlation` is the correlation of the colours of these neighbouring columns
about each channel's mean, over rows, the four seams, later frames and agents of a window.
`seam_continuity` = (c - floor) / (ceiling - floor): floor, mosaics whose left and right views come from another scene;
ceiling, the ground truth.
Range: correlation -1..1; continuity 0 .. 1, not clipped.
Failure cases: the cameras stand up to 0.9 m apart, so what is near shifts across the seam (it lowers the ceiling); a
blurred picture is continuous; views other than 90 degrees do not meet, and single views have no seam: not measured.
Source: the paper, Figure 3a ("strong internal consistency"); columns, because the views do not overlap.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from model.camera import VIEWS
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.metrics import GIVEN_FRAMES
from tasks.evaluation.measures.shared_world.colours import correlation_of
from tasks.evaluation.measures.shared_world.world import WindowTruth

SEAMS = (("left", "front"), ("front", "right"), ("right", "rear"), ("rear", "left"))
"""The last column of the one meets the first column of the other."""
RIGHT_ANGLE = 1e-3


def measure_seams(world: WindowTruth, videos: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """Return seam_correlation by row of videos [A, V, T, h, w, 3], None for videos without structure at the seams.

    EvaluationError for single views and for views that are not 90 degrees wide.
    """
    width = world.inverse.shape[-1]
    if world.inverse.shape[1] != len(VIEWS):
        raise EvaluationError("not measured: a single view has no seams: score a model of four views.")
    tangents = width / 2 / world.K[..., 0, 0]
    if np.abs(tangents - 1).max() > RIGHT_ANGLE:
        raise EvaluationError(
            f"not measured: views {2 * np.degrees(np.arctan(tangents.max())):.1f} degrees wide do not meet at their "
            "sides: record with 90."
        )
    left, right = ([VIEWS.index(name) for name in side] for side in zip(*SEAMS, strict=True))
    return {
        row: {"seam_correlation": correlation_of(later[:, left, :, :, -1], later[:, right, :, :, 0])}
        for row, later in ((row, video[:, :, GIVEN_FRAMES:]) for row, video in videos.items())
    }


def shuffled(video: np.ndarray, stranger: np.ndarray) -> np.ndarray:
    """Return front and rear of one video with left and right of another scene's, [A, 4, T, h, w, 3]: the floor."""
    mixed = video.copy()
    for name in ("left", "right"):
        mixed[:, VIEWS.index(name)] = stranger[:, VIEWS.index(name)]
    return mixed
