"""Scores a checkpoint on held-out towns, between baselines and the codec's ceiling (paper, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from infra.storage import OnProgress, no_progress
from model.presets import Preset
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.lpips import LpipsMissing, load_lpips
from tasks.evaluation.measures.metrics import front_of, views_of
from tasks.evaluation.measures.statistics import donors
from tasks.evaluation.scoring import probes
from tasks.evaluation.scoring import scores as names
from tasks.evaluation.scoring.baselines import blurred_first_frame, choose_sigma, copy_first_frame
from tasks.evaluation.scoring.rollouts import score_rollouts
from tasks.evaluation.scoring.sampling import Sampler
from tasks.evaluation.scoring.scores import Scores
from tasks.evaluation.scoring.shared_world import WITH_STRANGER, ScoredRow, SharedWorld
from tasks.evaluation.scoring.windows import Window, Windows, balanced
from tasks.runs.run import Run
from tasks.sharding.reader import ClipIndex

MOST_WINDOWS = 216
MOST_AT_FULL_STEPS = 54
"""Larger splits are scored on this many windows, spread over the recordings by a fixed seed."""
SHUFFLES = 3
"""Rings of scenes in which raymaps are passed on; their figures are averaged."""
SIGMA_WINDOWS, SIGMA_BATCH = 24, 4
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


def scored_views(video: torch.Tensor, preset: Preset) -> torch.Tensor:
    """Cut videos [N, A, 3, T, H, W] into the views that are scored, [N, A, V, T, 3, h, w] in [0, 1]."""
    return front_of(video) if preset.video.views == "front" else views_of(video)


def training_sigma(dataset_dir: Path, clips: ClipIndex, preset: Preset) -> float:
    """Choose the blur of the blurred first frame on training towns. EvaluationError without training clips."""
    rows = [row for row in clips.split("train") if row["variant"] == "base"]
    if not rows:
        raise EvaluationError(f"{dataset_dir} has no training clips to choose the blur on: collect them first.")
    some = balanced([row["recording_id"] for row in rows], SIGMA_WINDOWS)  # each holds a window at least
    windows = Windows(dataset_dir, [rows[index] for index in some], preset)
    windows.keep_at_most(SIGMA_WINDOWS)
    return choose_sigma(scored_views(windows.video(indices), preset) for indices in windows.batches(SIGMA_BATCH))


def chosen_examples(windows: Windows, among: set[int]) -> list[int]:
    """Return a window of each of EXAMPLES recordings, those where the agents see each other largest, largest first.

    The recordings decide, not what the model makes of them.
    """
    best: dict[str, tuple[float, int]] = {}
    for index in sorted(among):
        recording = windows[index].row["recording_id"]
        best[recording] = max(best.get(recording, (-1.0, -1)), (windows.mutual_sight(index), index))
    return [index for _, index in sorted(best.values(), reverse=True)][:EXAMPLES]


class Scoring:
    """One evaluation under way."""

    def __init__(self, sampler: Sampler, windows: Windows, sigma_px: float, scores: Scores, full: set[int]) -> None:
        self.sampler, self.windows, self.sigma_px, self.scores = sampler, windows, sigma_px, scores
        self.full, self.example_indices = full, chosen_examples(windows, full)
        self.preset = sampler.preset
        scenes = [window.scene for window in windows]
        self.rings = [donors(scenes, seed=seed) for seed in range(SHUFFLES)] if len(set(scenes)) > 1 else []
        self.agents = len(windows.cameras[windows[0].row["key"]].K)
        self.examples: dict[int, Example] = {}
        self.world = SharedWorld(windows, scores)
        self.scored_rows: list[ScoredRow] = []

    def add(self, row: str, indices: Sequence[int], views: torch.Tensor, truth: torch.Tensor) -> None:
        """Score views [N, A, V, T, 3, h, w], and keep them for what needs the true geometry."""
        self.scores.add(row, [self.windows[index] for index in indices], views, truth)
        self.scored_rows.append((row, indices, views))

    def to_views(self, video: torch.Tensor) -> torch.Tensor:
        return scored_views(video, self.preset)

    def generate(
        self, indices: Sequence[int], first: torch.Tensor, steps: int, cameras_of: Sequence[int]
    ) -> torch.Tensor:
        labels = [self.windows[index].name for index in indices]
        return self.sampler.generate(first, self.windows.raymaps(cameras_of), labels, steps)

    def score_batch(self, indices: list[int]) -> None:
        """Score some windows in every row."""
        video = self.windows.video(indices)
        truth, first = self.to_views(video), video[:, :, :, 0]
        windows = [self.windows[index] for index in indices]
        self.scored_rows = []
        round_trip = self.to_views(self.sampler.round_trip(video))
        self.add(names.CODEC, indices, round_trip, truth)  # first: the others' sharpness is measured by it
        self.scores.add(names.GROUND_TRUTH, windows, truth, truth)
        self.add(names.COPY, indices, copy_first_frame(truth), truth)
        self.add(names.BLUR, indices, blurred_first_frame(truth, self.sigma_px), truth)
        one_step = self.generate(indices, first, 1, indices)
        self.add(names.ONE_STEP, indices, self.to_views(one_step), truth)
        self.score_full_steps(indices, video, one_step, truth)
        strangers = self.windows.video([self.rings[0][index] for index in indices]) if self.rings else None
        if strangers is not None:
            self.score_shuffles(indices, first, strangers, truth)
        self.world.measure_batch(
            indices, truth, None if strangers is None else self.to_views(strangers), self.scored_rows
        )
        if self.agents > 1:
            by_window = probes.swap_figures(self.sampler, self.windows, indices, first, one_step, self.to_views)
            for window, figures in zip(windows, by_window, strict=True):
                self.scores.put_figures(names.ONE_STEP, window, figures)

    def score_full_steps(
        self, indices: list[int], video: torch.Tensor, one_step: torch.Tensor, truth: torch.Tensor
    ) -> None:
        """Score the windows that are chosen for it at the preset's steps and at few, and keep the examples."""
        positions = [position for position, index in enumerate(indices) if index in self.full]
        if not positions:
            return
        chosen = [indices[position] for position in positions]
        first, steps = video[positions, :, :, 0], self.preset.sampling.sampling_steps
        full_steps = self.generate(chosen, first, steps, chosen)
        self.add(names.FULL_STEPS, chosen, self.to_views(full_steps), truth[positions])
        if steps != names.FEW_STEPS:
            few_steps = self.generate(chosen, first, names.FEW_STEPS, chosen)
            self.scores.add(
                names.FOUR_STEPS, [self.windows[index] for index in chosen], self.to_views(few_steps), truth[positions]
            )
        for position, index, generated in zip(positions, chosen, full_steps, strict=True):
            if index in self.example_indices:
                self.examples[index] = Example(
                    self.windows[index], video[position], one_step[position], generated, self.preset.video.views
                )

    def score_shuffles(
        self, indices: list[int], first: torch.Tensor, strangers: torch.Tensor, truth: torch.Tensor
    ) -> None:
        """Score what needs another scene: its video in place of this one, its raymaps under this first frame, its
        first frame in place of the partner's."""
        windows = [self.windows[index] for index in indices]
        self.scores.add(names.SHUFFLED_PAIRS, windows, self.to_views(strangers), truth)
        videos = [self.generate(indices, first, 1, [ring[index] for index in indices]) for ring in self.rings]
        self.scores.add_psnr(names.SHUFFLED_RAYMAPS, windows, [self.to_views(video) for video in videos], truth)
        if self.world.measurable and self.agents > 1:
            foreign = probes.with_stranger(self.sampler, self.windows, indices, first, strangers[:, :, :, 0])
            self.scored_rows.append((WITH_STRANGER, indices, self.to_views(foreign)))

    def finish(self) -> dict[str, str]:
        """Score what needs all windows, and return what is missing with its reason."""
        shared = self.sampler, self.windows, self.scores, self.to_views
        alone = dict.fromkeys(probes.OF_PARTNERS, probes.ALONE) if self.agents == 1 else {}
        long = score_rollouts(self.sampler, self.windows, self.scores, self.world, self.to_views)
        return alone | probes.counterfactuals(*shared) | long | self.world.finish()


def evaluate(
    run: Run, dataset_dir: Path, latents_dir: Path, split: str = "test", on_progress: OnProgress = no_progress
) -> Evaluation:
    """Score a run's last checkpoint on a held-out split.

    EvaluationError for a missing checkpoint, another data set, an empty split; CodecError for a missing codec.
    """
    checkpoint, clips = run.latest_checkpoint(), ClipIndex(dataset_dir)
    if checkpoint is None:
        raise EvaluationError(f"run {run.run_id} has no checkpoint in {run.folder}: train it first.")
    if clips.digest != run.dataset_digest:
        raise EvaluationError(
            f"run {run.run_id} was trained on data {run.dataset_digest[:12]} and {dataset_dir} is {clips.digest[:12]} "
            "now: score it on its own data set, or train a new run."
        )
    if not clips.whole(split):
        raise EvaluationError(f"{dataset_dir} has no clips in split {split!r}: score another split.")
    preset = run.preset
    sampler = Sampler.of_checkpoint(preset, checkpoint, latents_dir)
    on_progress(0, len(clips.whole(split)), "choosing the blur on training towns")
    sigma_px = training_sigma(dataset_dir, clips, preset)
    windows = Windows(dataset_dir, clips.whole(split), preset)
    everything = len(windows)
    windows.keep_at_most(MOST_WINDOWS)
    missing: dict[str, str] = {}
    halves = 1 if preset.video.views == "front" else 2
    try:
        lpips = load_lpips(preset.video.height // halves, preset.video.width // halves)
    except LpipsMissing as reason:
        lpips, missing["lpips"] = None, str(reason)
    full = set(windows.balanced(MOST_AT_FULL_STEPS))
    scoring = Scoring(sampler, windows, sigma_px, Scores(lpips), full)
    for indices in windows.batches(sampler.batch):
        on_progress(indices[0], len(windows), windows[indices[0]].row["town"])
        scoring.score_batch(indices)
    on_progress(len(windows), len(windows), "changed worlds and long videos")
    missing |= scoring.finish()
    on_progress(len(windows), len(windows), "")
    examples = [scoring.examples[index] for index in scoring.example_indices]
    return Evaluation(
        checkpoint, split, preset.sampling.sampling_steps, sigma_px, scoring.scores, missing, examples,
        everything - len(windows),
    )  # fmt: skip
