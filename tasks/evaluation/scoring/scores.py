"""The figures of every scored window, and what is said of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tasks.evaluation.measures.lpips import LpipsAlex
from tasks.evaluation.measures.metrics import GIVEN_FRAMES, detail, psnr, temporal_flickering
from tasks.evaluation.measures.shared_world.figures import LEAST_SPAN, NORMALISED
from tasks.evaluation.measures.ssim import ssim
from tasks.evaluation.measures.statistics import Interval, cluster_interval
from tasks.evaluation.scoring.windows import Window

FULL_STEPS, ONE_STEP, SHUFFLED_RAYMAPS = "model", "model_1_step", "model_1_step_shuffled_raymaps"
FEW_STEPS, FOUR_STEPS = 4, "model_4_steps"
"""What a model that is to be driven can afford."""
GROUND_TRUTH, CODEC, COPY, BLUR, SHUFFLED_PAIRS = (
    "ground_truth", "codec", "copy_first_frame", "blurred_first_frame", "shuffled_pairs",
)  # fmt: skip
TRIVIAL = ("psnr", "ssim", "lpips")
"""Figures that say nothing of a video beside itself."""
GROUPED_BY = {"town": "town", "weather": "weather", "type": "trajectory_type"}


class Scores:
    """Arrays by row and metric: [A, V, T-1] a window, frame 0 left out (flickering: [A, V, T-2]); figures of the shared
    world are single numbers, of the windows in which they can be measured."""

    def __init__(self, lpips: LpipsAlex | None) -> None:
        self.lpips = lpips
        self.arrays: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        self.windows: dict[str, Window] = {}
        self.codec_detail: dict[str, float] = {}
        """By window, `detail` of the codec's round trip: what sharpness is measured by."""

    def add(self, row: str, windows: Sequence[Window], views: torch.Tensor, truth: torch.Tensor) -> None:
        """Score views [N, A, V, T, 3, h, w] of N windows against the true ones; sharpness only once the codec's were
        added."""
        views, truth = views[..., GIVEN_FRAMES:, :, :, :], truth[..., GIVEN_FRAMES:, :, :, :]
        found = {
            "psnr": psnr(views, truth),
            "ssim": ssim(views, truth),
            "temporal_flickering": temporal_flickering(views),
        }
        if row == CODEC:
            self.codec_detail |= dict(
                zip((window.name for window in windows), detail(views).flatten(1).mean(1).tolist(), strict=True)
            )
        if all(window.name in self.codec_detail for window in windows):
            ours = detail(views)
            codec = torch.tensor([self.codec_detail[window.name] for window in windows])
            found["sharpness"] = ours / codec.view(-1, *[1] * (ours.ndim - 1))
        if self.lpips is not None:
            found["lpips"] = self.lpips(views, truth)
        self.put(row, windows, found)

    def add_psnr(self, row: str, windows: Sequence[Window], takes: Sequence[torch.Tensor], truth: torch.Tensor) -> None:
        """Keep the PSNR alone, its mean over several takes, each [N, A, V, T, 3, h, w]."""
        truth = truth[..., GIVEN_FRAMES:, :, :, :]
        scored = [psnr(views[..., GIVEN_FRAMES:, :, :, :], truth) for views in takes]
        self.put(row, windows, {"psnr": torch.stack(scored).mean(0)})

    def put(self, row: str, windows: Sequence[Window], found: Mapping[str, torch.Tensor]) -> None:
        for place, window in enumerate(windows):
            self.windows[window.name] = window
            for metric, values in found.items():
                self.arrays.setdefault((row, metric), {})[window.name] = values[place].numpy()

    def put_figures(self, row: str, window: Window, figures: Mapping[str, float | None]) -> None:
        """Keep single figures of one window; None is left out."""
        for metric, value in figures.items():
            if value is not None:
                self.windows[window.name] = window
                self.arrays.setdefault((row, metric), {})[window.name] = np.array(value, float)

    def normalise(self) -> dict[str, str]:
        """Add the figures that lie between shuffled pairs (0) and ground truth (1); return what has none and why.

        1 - (c_w - x_w) / (c - f): each window beside its own ground truth c_w, on the scale of the mean ceiling c and
        floor f, so that a scene's own difficulty is not in the interval.
        """
        missing = {}
        for name, raw in NORMALISED.items():
            if (GROUND_TRUTH, raw) not in self.arrays:
                continue
            if (SHUFFLED_PAIRS, raw) not in self.arrays:
                missing[name] = "not measured: the floor needs a window of another scene and the split has one scene"
                continue
            ceiling, floor = self.mean(GROUND_TRUTH, raw), self.mean(SHUFFLED_PAIRS, raw)
            if ceiling - floor < LEAST_SPAN:
                missing[name] = (
                    f"not measured: {raw} of the ground truth ({ceiling:.3f}) lies no {LEAST_SPAN} above that of "
                    f"shuffled pairs ({floor:.3f})"
                )
                continue
            for row in self.rows():
                for window, value in self.arrays.get((row, raw), {}).items():
                    highest = self.arrays[GROUND_TRUTH, raw].get(window)
                    scaled = None if highest is None else 1 - float(highest - value) / (ceiling - floor)
                    self.put_figures(row, self.windows[window], {name: scaled})
        return missing

    def drop_lonely(self) -> dict[str, str]:
        """Leave out what only one of several scenes could give, as no interval can be said; return what and why."""
        if len({window.scene for window in self.windows.values()}) < 2:
            return {}
        missing = {}
        for (row, metric), values in list(self.arrays.items()):
            if len({self.windows[name].scene for name in values}) < 2:
                del self.arrays[row, metric]
                missing[f"{row}/{metric}"] = f"not measured: {len(values)} windows of one scene only could give it"
        return missing

    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.arrays))

    def metrics(self, row: str) -> list[str]:
        return [metric for name, metric in self.arrays if name == row]

    def per_window(self, row: str, metric: str) -> dict[str, float]:
        """Return each window's mean."""
        return {name: float(values.mean()) for name, values in self.arrays[row, metric].items()}

    def mean(self, row: str, metric: str) -> float:
        return float(np.mean(list(self.per_window(row, metric).values())))

    def means(self, rows: Sequence[str], metric: str) -> list[float]:
        """Return the means of rows over the windows that all of them have; nothing where there is no such window."""
        values = [self.per_window(row, metric) for row in rows]
        common = [name for name in values[0] if all(name in others for others in values)]
        return [float(np.mean([of[name] for name in common])) for of in values if common]

    def count(self, row: str) -> int:
        return len(self.arrays[row, "psnr"])

    def interval(self, row: str, metric: str, minus: str = "") -> Interval:
        """Return the mean over windows with its 95 % interval, of `row`, or of `row` minus another where both are."""
        values = self.per_window(row, metric)
        if minus:
            other = self.per_window(minus, metric)
            values = {name: value - other[name] for name, value in values.items() if name in other}
        return cluster_interval(list(values.values()), [self.windows[name].scene for name in values])

    def by_frame(self, row: str) -> list[float]:
        """Return the mean PSNR of frames 1, 2, ..."""
        return np.mean([values.mean((0, 1)) for values in self.arrays[row, "psnr"].values()], 0).tolist()

    def table(self) -> list[dict[str, Any]]:
        """Return one line per window and row: where it lies and its figures."""
        lines = []
        for row in self.rows():
            for name in dict.fromkeys(name for metric in self.metrics(row) for name in self.arrays[row, metric]):
                window = self.windows[name]
                place = {"window": name, "clip": window.row["key"], "start": window.start}
                place |= {title: window.row[column] for title, column in GROUPED_BY.items()}
                figures = {
                    metric: round(float(self.arrays[row, metric][name].mean()), 5)
                    for metric in self.metrics(row)
                    if name in self.arrays[row, metric]
                }
                lines.append({"row": row, **place, **figures})
        return lines
