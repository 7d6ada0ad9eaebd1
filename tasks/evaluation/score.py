"""Scoring a checkpoint on held-out towns beside what costs nothing and what cannot be exceeded (paper, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from infra.storage import OnProgress, no_progress
from model.presets import Preset
from tasks.evaluation import scores as names
from tasks.evaluation.baselines import blurred_first_frame, choose_sigma, copy_first_frame
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.lpips import LpipsMissing, load_lpips
from tasks.evaluation.metrics import front_of, views_of
from tasks.evaluation.sampling import Sampler
from tasks.evaluation.scores import Scores
from tasks.evaluation.statistics import donors
from tasks.evaluation.windows import Window, Windows
from tasks.sharding.reader import ClipIndex
from tasks.training.run import Run

MOST_WINDOWS = 216
MOST_AT_FULL_STEPS = 54
"""Larger splits are scored on as many windows of every recording, chosen by a fixed seed."""
SHUFFLES = 3
"""Rings of scenes in which raymaps are passed on; their figures are averaged."""
SIGMA_WINDOWS = 24
EXAMPLES = 4


@dataclass
class Example:
    """Videos [A, 3, T, H, W] in [-1, 1] of one window, to be looked at."""

    window: Window
    truth: torch.Tensor
    one_step: torch.Tensor
    full_steps: torch.Tensor
    views: str = "four"
    """"four": mosaics; "front": single views."""


@dataclass
class Evaluation:
    """What was measured."""

    checkpoint: Path
    split: str
    steps: int
    sigma_px: float
    scores: Scores
    missing: dict[str, str] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    left_out: int = 0
    """Windows of the split that were not scored."""


def views(video: torch.Tensor, preset: Preset) -> torch.Tensor:
    """Cut videos [N, A, 3, T, H, W] into the views that are scored, [N, A, V, T, 3, h, w] in [0, 1]."""
    return front_of(video) if preset.video.views == "front" else views_of(video)


def training_sigma(dataset_dir: Path, index: ClipIndex, preset: Preset) -> float:
    """Choose the blur of the blurred first frame on training towns. EvaluationError without training clips."""
    windows = Windows(dataset_dir, index.split("train"), preset)
    if not len(windows):
        raise EvaluationError(f"{dataset_dir} has no training clips to choose the blur on: collect them first.")
    windows.keep(SIGMA_WINDOWS)
    return choose_sigma([views(windows.video(places), preset) for places in windows.batches(8)])


def chosen_examples(windows: Windows, among: set[int]) -> list[int]:
    """Return a window of each of EXAMPLES recordings, those where the agents see each other largest, largest first.

    The recordings decide, not what the model makes of them.
    """
    best: dict[str, tuple[float, int]] = {}
    for place in sorted(among):
        recording = windows[place].row["recording_id"]
        best[recording] = max(best.get(recording, (-1.0, -1)), (windows.sight(place), place))
    return [place for _, place in sorted(best.values(), reverse=True)][:EXAMPLES]


class Scoring:
    """One evaluation under way."""

    def __init__(self, sampler: Sampler, windows: Windows, sigma_px: float, scores: Scores, full: set[int]) -> None:
        self.sampler, self.windows, self.sigma_px, self.scores = sampler, windows, sigma_px, scores
        self.full, self.examples = full, chosen_examples(windows, full)
        self.preset = sampler.preset
        scenes = [window.scene for window in windows]
        self.rings = [donors(scenes, seed=seed) for seed in range(SHUFFLES)] if len(set(scenes)) > 1 else []
        self.kept: dict[int, Example] = {}

    def add(self, row: str, places: Sequence[int], video: torch.Tensor, truth: torch.Tensor) -> None:
        self.scores.add(row, [self.windows[place] for place in places], views(video, self.preset), truth)

    def generate(
        self, places: Sequence[int], first: torch.Tensor, steps: int, cameras_of: Sequence[int]
    ) -> torch.Tensor:
        labels = [self.windows[place].name for place in places]
        return self.sampler.generate(first, self.windows.raymaps(cameras_of), labels, steps)

    def batch(self, places: list[int]) -> None:
        """Score some windows in every row."""
        video = self.windows.video(places)
        truth, first = views(video, self.preset), video[:, :, :, 0]
        windows = [self.windows[place] for place in places]
        self.scores.add(names.GROUND_TRUTH, windows, truth, truth)
        self.scores.add(names.COPY, windows, copy_first_frame(truth), truth)
        self.scores.add(names.BLUR, windows, blurred_first_frame(truth, self.sigma_px), truth)
        self.add(names.CODEC, places, self.sampler.round_trip(video), truth)
        one_step = self.generate(places, first, 1, places)
        self.add(names.ONE_STEP, places, one_step, truth)
        self.shuffles(places, first, truth)
        chosen = [position for position, place in enumerate(places) if place in self.full]
        if not chosen:
            return
        inside = [places[position] for position in chosen]
        full_steps = self.generate(inside, first[chosen], self.preset.sampling.sampling_steps, inside)
        self.add(names.FULL_STEPS, inside, full_steps, truth[chosen])
        for position, place, generated in zip(chosen, inside, full_steps, strict=True):
            if place in self.examples:
                self.kept[place] = Example(
                    self.windows[place], video[position], one_step[position], generated, self.preset.video.views
                )

    def shuffles(self, places: list[int], first: torch.Tensor, truth: torch.Tensor) -> None:
        """Score what needs another scene: its video in place of this one, its raymaps under this first frame."""
        if not self.rings:
            return
        strangers = self.windows.video([self.rings[0][place] for place in places])
        self.add(names.SHUFFLED_PAIRS, places, strangers, truth)
        takes = [self.generate(places, first, 1, [ring[place] for place in places]) for ring in self.rings]
        windows = [self.windows[place] for place in places]
        self.scores.add_psnr(names.SHUFFLED_RAYMAPS, windows, [views(take, self.preset) for take in takes], truth)


def evaluate(
    run: Run, dataset_dir: Path, latents_dir: Path, split: str = "test", on_progress: OnProgress = no_progress
) -> Evaluation:
    """Score a run's last checkpoint on a held-out split.

    EvaluationError for a missing checkpoint, another data set, an empty split; CodecError for a missing codec.
    """
    checkpoint, index = run.latest_checkpoint(), ClipIndex(dataset_dir)
    if checkpoint is None:
        raise EvaluationError(f"run {run.run_id} has no checkpoint in {run.folder}: train it first.")
    if index.digest != run.dataset_digest:
        raise EvaluationError(
            f"run {run.run_id} was trained on data {run.dataset_digest[:12]} and {dataset_dir} is {index.digest[:12]} "
            "now: score it on its own data set, or train a new run."
        )
    if not index.split(split):
        raise EvaluationError(f"{dataset_dir} has no clips in split {split!r}: score another split.")
    preset = run.preset
    sampler = Sampler.of_checkpoint(preset, checkpoint, latents_dir)
    on_progress(0, len(index.split(split)), "choosing the blur on training towns")
    sigma_px = training_sigma(dataset_dir, index, preset)
    windows = Windows(dataset_dir, index.split(split), preset)
    everything = len(windows)
    windows.keep(MOST_WINDOWS)
    missing: dict[str, str] = {}
    halves = 1 if preset.video.views == "front" else 2
    try:
        lpips = load_lpips(preset.video.height // halves, preset.video.width // halves)
    except LpipsMissing as reason:
        lpips, missing["lpips"] = None, str(reason)
    full = set(windows.balanced(MOST_AT_FULL_STEPS))
    scoring = Scoring(sampler, windows, sigma_px, Scores(lpips), full)
    for places in windows.batches(sampler.batch):
        on_progress(places[0], len(windows), windows[places[0]].row["town"])
        scoring.batch(places)
    on_progress(len(windows), len(windows), "")
    examples = [scoring.kept[place] for place in scoring.examples]
    return Evaluation(
        checkpoint, split, preset.sampling.sampling_steps, sigma_px, scoring.scores, missing, examples,
        everything - len(windows),
    )  # fmt: skip
