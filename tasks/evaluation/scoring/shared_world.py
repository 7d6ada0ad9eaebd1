"""The figures of a shared world, batch by batch. What cannot be measured is reported with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch

from tasks.encoding.frames import model_video
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.metrics import front_of, views_of
from tasks.evaluation.measures.shared_world.figures import NORMALISED
from tasks.evaluation.measures.shared_world.localisation import CarDetector, calibrate, trustworthy
from tasks.evaluation.measures.shared_world.measure import STANDS_FOR, WindowGeometry, measure_window
from tasks.evaluation.measures.shared_world.visibility import CLASSES
from tasks.evaluation.measures.shared_world.world import WindowTruth, as_frames, read_window_truth
from tasks.evaluation.scoring import scores as names
from tasks.evaluation.scoring.scores import Scores
from tasks.evaluation.scoring.windows import Windows
from tasks.sharding.reader import ClipPair, read_pair
from tasks.sharding.shards import ShardError

CALIBRATION_WINDOWS = 24
LEAST_CODEC_RECALL = 0.5
"""Below this a missing car may be the codec's doing: generated videos, which come out of it, are not judged."""
RECENT_PAIRS = 2
WITH_PARTNER, WITH_STRANGER = names.ONE_STEP, "with_stranger"
ScoredRow = tuple[str, Sequence[int], torch.Tensor]
"""A row's name, the indices of its windows and their views [N, A, V, T, 3, h, w] in [0, 1]."""


class SharedWorld:
    """Measures the windows of one evaluation in the worlds that they were recorded in."""

    def __init__(self, windows: Windows, scores: Scores) -> None:
        """Calibrate the detector on true videos; what can't be measured is in `missing` with its reason."""
        self.windows, self.scores = windows, scores
        self.missing: dict[str, str] = {}
        self.figures: set[str] = set()
        """What was put so far."""
        self.pair = lru_cache(RECENT_PAIRS)(self.read)
        self.detector: CarDetector | None = None
        try:
            self.world(0)
        except (EvaluationError, ShardError) as reason:
            self.missing = dict.fromkeys(STANDS_FOR.values(), str(reason))
            return
        try:
            self.detector = calibrate(self.samples())
        except (EvaluationError, ShardError) as reason:
            self.missing[STANDS_FOR["localisation"]] = str(reason)

    @property
    def measurable(self) -> bool:
        return STANDS_FOR["visibility"] not in self.missing

    def read(self, key: str) -> ClipPair:
        return read_pair(key, self.windows.clips.read(self.windows.rows[key]))

    def world(self, index: int) -> WindowTruth:
        """Return a window's geometry. EvaluationError without depth and ids."""
        window = self.windows[index]
        return read_window_truth(self.pair(window.row["key"]), self.windows.preset.video, window.start)

    def samples(self) -> Iterator[tuple[WindowTruth, np.ndarray]]:
        """Yield geometry and true video of some windows, spread evenly over the recordings."""
        to_views = front_of if self.windows.preset.video.views == "front" else views_of
        for index in self.windows.balanced(CALIBRATION_WINDOWS):
            window, world = self.windows[index], self.world(index)
            frames = self.pair(window.row["key"]).videos[:, window.start : window.start + self.windows.frames]
            yield world, as_frames(to_views(model_video(frames, self.windows.preset.video)[None])[0], world.frames)

    def measure_batch(
        self, indices: Sequence[int], truth: torch.Tensor, strangers: torch.Tensor | None, scored_rows: list[ScoredRow]
    ) -> None:
        """Measure windows: their true views, another scene's (None: the split has one scene) and those of the rows.

        A row may have some of the indices only. Rows named WITH_STRANGER become gains of WITH_PARTNER over them.
        """
        if not self.measurable:
            return
        for position, index in enumerate(indices):
            videos = {row: views[list(of).index(index)] for row, of, views in scored_rows if index in of}
            stranger = None if strangers is None else strangers[position]
            try:
                world = self.world(index)
            except (EvaluationError, ShardError) as reason:
                self.missing |= dict.fromkeys(STANDS_FOR.values(), str(reason))
                return
            window = WindowGeometry.of_views(world, truth[position], videos, stranger)
            by_row = measure_window(
                window, self.detector, self.missing, ground_truth=names.GROUND_TRUTH, floor=names.SHUFFLED_PAIRS
            )
            if WITH_STRANGER in by_row:
                by_row[WITH_PARTNER] |= gains(by_row[WITH_PARTNER], by_row.pop(WITH_STRANGER))
            for row, figures in by_row.items():
                self.scores.put_figures(row, self.windows[index], figures)
                self.figures |= set(figures)

    def finish(self) -> dict[str, str]:
        """Add what needs all windows, and return every figure that is missing with its reason."""
        self.drop_partial()
        missing = self.missing | self.never_given() | self.distrust() | self.spare_generated()
        return missing | self.scores.normalise() | self.scores.drop_lonely()

    def never_given(self) -> dict[str, str]:
        """Return the metrics that no window could give, with the reason."""
        return {
            name: "not measured: in no window do enough pixels show what it needs (docs/METRICS.md)"
            for name in STANDS_FOR.values()
            if name not in self.missing and NORMALISED.get(name, name) not in self.figures
        }

    def drop_partial(self) -> None:
        """Drop what a window had no ground truth for from all windows: a figure is over all or missing."""
        lacking = {NORMALISED.get(name, name) for name in self.missing} if self.measurable else self.figures
        for row, metric in list(self.scores.arrays):
            if metric in lacking:
                del self.scores.arrays[row, metric]

    def distrust(self) -> dict[str, str]:
        """Take back what the detector says where it is wrong of the true videos of all windows; return why.

        It was calibrated on some of them.
        """
        needed = ("other_recall", "other_false_presence", "other_centre_px")
        if any((names.GROUND_TRUTH, name) not in self.scores.arrays for name in needed):
            return {}
        own = {name: self.scores.mean(names.GROUND_TRUTH, name) for name in needed}
        video = self.windows.preset.video
        if trustworthy(own, video.width if video.views == "front" else video.width // 2):
            return {}
        self.take_back(row for row in self.scores.rows() if row != names.GROUND_TRUTH)
        return {
            STANDS_FOR["localisation"]: "not measured: on the true videos of all windows the detector of the other car "
            f"has a recall of {own['other_recall']:.2f}, a false presence of {own['other_false_presence']:.2f} and is "
            f"off by {own['other_centre_px']:.1f} px: it tells nothing here."
        }

    def take_back(self, rows: Iterable[str]) -> None:
        """Drop what was said of the other car in some rows."""
        dropped = set(rows)
        for row, metric in list(self.scores.arrays):
            if row in dropped and metric.startswith(("other_", "rollout_other_")):
                del self.scores.arrays[row, metric]

    def spare_generated(self) -> dict[str, str]:
        """Take back what the detector says of generated videos where it is blind behind the codec; return why."""
        if (names.CODEC, "other_recall") not in self.scores.arrays:
            return {}
        recall = self.scores.mean(names.CODEC, "other_recall")
        if recall >= LEAST_CODEC_RECALL:
            return {}
        self.take_back((names.ONE_STEP, names.FULL_STEPS))
        return {
            STANDS_FOR["localisation"]: f"not measured of generated videos: true videos that went through the codec "
            f"keep the other car's colour in {recall:.0%} of the views with it (needed: {LEAST_CODEC_RECALL:.0%}), "
            "so a car that is not found need not be missing: use a codec with more channels."
        }


def gains(with_partner: dict[str, float | None], with_stranger: dict[str, float | None]) -> dict[str, float | None]:
    """Return partner_gain_<class>: the PSNR of a class with the partner's picture minus that with a stranger's."""
    figures: dict[str, float | None] = {}
    for name in CLASSES:
        partner, stranger = with_partner[f"psnr_{name}"], with_stranger[f"psnr_{name}"]
        both = partner is not None and stranger is not None
        figures[f"partner_gain_{name}"] = partner - stranger if both else None  # type: ignore[operator]
    return figures
