"""Scoring the arms of the paper's ablations on held-out windows, and what is kept of it: `runs/<id>/paper.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from infra.reading import read_json
from infra.storage import OnProgress, atomic_file, no_progress
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.paper.study import PaperArm, PaperStudy
from tasks.evaluation.measures.statistics import Interval, cluster_interval
from tasks.evaluation.scoring.baselines import copy_first_frame
from tasks.evaluation.scoring.sampling import Sampler
from tasks.evaluation.scoring.score import MOST_AT_FULL_STEPS, MOST_WINDOWS, scored_views
from tasks.evaluation.scoring.scores import Scores
from tasks.evaluation.scoring.windows import Windows
from tasks.runs.run import Run
from tasks.sharding.reader import ClipIndex

MARKER = "paper.json"
SCORING = 1
"""Number of this way of scoring: raise it when windows, sampler or metrics change."""
METRICS = ("psnr", "ssim")
SPLIT = "test"


@dataclass(frozen=True)
class PaperScore:
    """What was measured of one arm: figures by window, as named by `figure_name`."""

    arm: PaperArm
    scenes: dict[str, str]
    """Window -> scene."""
    figures: dict[str, dict[str, float]]
    """Figure -> window -> value; PSNR in dB."""

    def interval(self, figure: str) -> Interval:
        """Return the mean over windows with its 95 % interval by scene. BenchmarkError with fewer than two scenes."""
        return by_scene(self.figures[figure], self.scenes)

    def metrics(self) -> dict[str, float]:
        """Return all figures' means and the ends of their intervals by flat names."""
        found: dict[str, float] = {}
        for name in self.figures:
            interval = self.interval(name)
            found |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        return found


def by_scene(values: Mapping[str, float], scenes: Mapping[str, str]) -> Interval:
    """Return the mean of one value per window with its interval by scene. BenchmarkError with fewer than two scenes."""
    try:
        return cluster_interval(list(values.values()), [scenes[window] for window in values])
    except ValueError as error:
        raise BenchmarkError(f"the windows of split {SPLIT!r} cannot be compared: {error}; record more.") from error


def figure_name(metric: str, row: str, front: bool = False) -> str:
    """Return the flat name of a figure: `psnr` is at one sampling step; others say what they are of.

    `front`: of front views at the study's common size.
    """
    return f"{'front_' if front else ''}{metric}{'' if row == steps_row(1) else f'_{row}'}"


def steps_row(steps: int) -> str:
    return f"{steps}_steps"


def shrunk(view: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bring views [..., 3, h, w] to a size that is not larger by averaging areas."""
    if view.shape[-2:] == size:
        return view
    return F.interpolate(view.flatten(0, -4), size, mode="area").unflatten(0, view.shape[:-3])


class PaperScoring:
    """One arm's scoring under way."""

    def __init__(self, study: PaperStudy, run: Run, sampler: Sampler) -> None:
        """Read the windows of the test split. BenchmarkError when it is empty or not the run's data."""
        index = ClipIndex(run.dataset_dir)
        if index.digest != run.dataset_digest:
            raise BenchmarkError(f"{run.dataset_dir} was changed since run {run.run_id} was opened: start again.")
        if not index.whole(SPLIT):
            raise BenchmarkError(f"{run.dataset_dir} has no clips in split {SPLIT!r}: record held-out towns.")
        self.sampler, self.preset, self.size = sampler, run.preset, study.front_size
        height, width = self.size
        # a copy that is not checked: nothing is trained at this size, which need not be of whole tokens
        video = run.preset.video.model_copy(update={"views": "front", "height": height, "width": width})
        self.windows = Windows(run.dataset_dir, index.whole(SPLIT), run.preset)
        self.fronts = Windows(run.dataset_dir, index.whole(SPLIT), run.preset.model_copy(update={"video": video}))
        for windows in (self.windows, self.fronts):
            windows.keep_at_most(MOST_WINDOWS)
        self.steps = study.sampling_steps
        self.full = set(self.windows.balanced(MOST_AT_FULL_STEPS))
        self.all_views, self.front = Scores(None), Scores(None)

    def add(self, row: str, indices: list[int], generated: torch.Tensor, truth: torch.Tensor) -> None:
        """Score views [N, A, V, T, 3, h, w]: all of them, where the arm has four, and the front at the common size."""
        windows = [self.windows[index] for index in indices]
        if self.preset.video.views == "four":
            self.all_views.add(row, windows, generated, truth)
        true_front = scored_views(self.fronts.video(indices), self.fronts.preset)
        self.front.add(row, windows, shrunk(generated[:, :, :1], self.size), true_front)

    def score_batch(self, indices: list[int]) -> None:
        """Score some windows, with the copied first frame and the codec's round trip beside them."""
        video = self.windows.video(indices)
        truth = scored_views(video, self.preset)
        self.add("copy", indices, copy_first_frame(truth), truth)
        self.add("codec", indices, scored_views(self.sampler.round_trip(video), self.preset), truth)
        for steps in self.steps:
            positions = [position for position, index in enumerate(indices) if steps == 1 or index in self.full]
            if not positions:
                continue
            chosen = [indices[position] for position in positions]
            names = [self.windows[index].name for index in chosen]
            inputs = video[positions, :, :, 0], self.windows.raymaps(chosen), names
            generated = scored_views(self.sampler.generate(*inputs, steps), self.preset)
            self.add(steps_row(steps), chosen, generated, truth[positions])

    def figures(self) -> dict[str, dict[str, float]]:
        """Return the figures by name and window."""
        return {
            figure_name(metric, row, scores is self.front): scores.per_window(row, metric)
            for scores in (self.all_views, self.front)
            for row in scores.rows()
            for metric in METRICS
        }


def score_paper_arm(
    study: PaperStudy, arm: PaperArm, run: Run, sampler: Sampler, on_progress: OnProgress = no_progress
) -> PaperScore:
    """Score an arm's checkpoint on the test split; every arm gets the same windows, the same noise names and truth."""
    scoring = PaperScoring(study, run, sampler)
    for indices in scoring.windows.batches(sampler.batch):
        on_progress(indices[0], len(scoring.windows), str(arm))
        scoring.score_batch(indices)
    on_progress(len(scoring.windows), len(scoring.windows), str(arm))
    return PaperScore(arm, {window.name: window.scene for window in scoring.windows}, scoring.figures())


def keep_paper_score(run: Run, score: PaperScore) -> None:
    """Write an arm's figures down."""
    record = {"scoring": SCORING, "arm": str(score.arm), "scenes": score.scenes, "figures": score.figures}
    with atomic_file(run.folder / MARKER) as path:
        path.write_text(json.dumps(record))


def paper_score_before(run: Run, arm: PaperArm) -> PaperScore | None:
    """Return an arm's figures of an earlier scoring, None where there are none, or of another way of scoring."""
    marker = run.folder / MARKER
    if not marker.exists():
        return None
    advice = "remove it and run the deployment again, to score the arm again."
    record = read_json(marker, advice, error=BenchmarkError)
    if record.get("scoring") != SCORING:
        return None
    if not isinstance(record.get("scenes"), dict) or not isinstance(record.get("figures"), dict):
        raise BenchmarkError(f"{marker} holds no figures of an arm: {advice}")
    return PaperScore(arm, record["scenes"], record["figures"])
