"""All figures of one window that need its true geometry, of every row at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.shared_world import covisible, localisation, pose_following, seams, visibility
from tasks.evaluation.measures.shared_world.localisation import CarDetector
from tasks.evaluation.measures.shared_world.world import WindowTruth, as_frames

Figures = dict[str, dict[str, float | None]]
"""By row, by figure; None: not measurable in this window."""
STANDS_FOR = {
    "visibility": "psnr_only_other",
    "covisible": "covisible_agreement",
    "pose": "pose_following",
    "seams": "seam_continuity",
    "localisation": "other_recall",
}
"""Under which name the reason of a metric that is not measured is kept."""


@dataclass
class WindowGeometry:
    """A window's geometry, and its videos [A, V, T', h, w, 3] of the measured frames by row."""

    world: WindowTruth
    truth: np.ndarray
    videos: dict[str, np.ndarray]
    stranger: np.ndarray | None
    """Another scene's true video: the floor."""

    @classmethod
    def of_views(
        cls, world: WindowTruth, truth: torch.Tensor, videos: Mapping[str, torch.Tensor], stranger: torch.Tensor | None
    ) -> WindowGeometry:
        """Take the measured frames of views [A, V, T, 3, h, w] in [0, 1]."""
        frames = world.frames
        return cls(
            world,
            as_frames(truth, frames),
            {row: as_frames(video, frames) for row, video in videos.items()},
            None if stranger is None else as_frames(stranger, frames),
        )

    def rows(
        self, ground_truth: str, floor: str, shuffle: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the videos with the ground truth and, `shuffle`d with the true video or alone, the stranger."""
        rows = {ground_truth: self.truth, **self.videos}
        if self.stranger is not None:
            rows[floor] = shuffle(self.truth, self.stranger) if shuffle else self.stranger
        return rows


def measure_window(
    window: WindowGeometry, detector: CarDetector | None, missing: dict[str, str], *, ground_truth: str, floor: str
) -> Figures:
    """Return the window's figures by row; `ground_truth` and `floor` are what these rows are called.

    What this kind of clip does not allow is left out and its reason put into `missing`.
    """
    world, found = window.world, Figures()

    def merge(figures: Figures) -> None:
        for row, values in figures.items():
            found.setdefault(row, {}).update(values)

    split, shares = visibility.measure_visibility(
        world, {k: v for k, v in window.rows("", floor).items() if k}, window.truth
    )
    merge(split)
    merge({ground_truth: {**shares}})
    merge(covisible.measure_covisible(world, window.rows(ground_truth, floor, covisible.shuffled)))
    merge(pose_following.measure_pose_following(world, window.rows(ground_truth, floor)))
    try:
        merge(seams.measure_seams(world, window.rows(ground_truth, floor, seams.shuffled)))
    except EvaluationError as reason:
        missing[STANDS_FOR["seams"]] = str(reason)
    if detector is not None:
        merge(localisation.measure_localisation(world, window.rows(ground_truth, floor), detector))
        if np.isnan(world.cars).any():
            missing |= dict.fromkeys(localisation.BY_DISTANCE, localisation.NO_POSES)
    return found
