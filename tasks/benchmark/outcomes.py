"""Scoring the arms of a setting, and what is kept of it: `runs/<id>/<size>-benchmark.json`, written last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.storage import OnProgress, atomic_file, no_progress
from tasks.benchmark.arms import Ablation, Arm
from tasks.benchmark.detector import Detector, calibrated
from tasks.benchmark.entries import Entry, Ours
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.scenes import BenchScenes, read_scenes
from tasks.benchmark.score import Outcome, score
from tasks.evaluation.sampling import Sampler
from tasks.training.run import Run, create_run

BESIDE = ("accuracy", "accuracy_low", "accuracy_high", "follows", "keeps", "psnr", "psnr_fact")
"""Figures that are also given at other numbers of sampling steps than the first."""


@dataclass(frozen=True)
class ArmScore:
    """What was measured of one arm."""

    arm: Arm
    metrics: dict[str, float]
    missing: dict[str, str]
    outcome: Outcome | None = field(default=None, repr=False)
    """At the ablation's first number of sampling steps; None where it was scored in an earlier run."""


def marker_of(run: Run, ablation: Ablation) -> Path:
    return run.folder / f"{ablation.size}-benchmark.json"


def scored_before(run: Run, ablation: Ablation, arm: Arm) -> ArmScore | None:
    """Return an arm's figures of an earlier run, None where there are none."""
    marker = marker_of(run, ablation)
    if not marker.exists():
        return None
    record: dict[str, Any] = json.loads(marker.read_text())
    return ArmScore(arm, record["metrics"], record["missing"])


def report_folder(run: Run, size: str) -> Path:
    """Return where the page of a setting lies: with the run of its first arm."""
    return run.folder / f"{size}-report"


def standing_of(ablation: Ablation) -> list[tuple[Run, ArmScore]]:
    """Return what was scored so far, in the ablation's order."""
    found = []
    for arm in (arm for setting in ablation.settings for arm in ablation.arms_of(setting)):
        run = create_run(arm.setting.dataset, arm.preset, mark_last=False)
        score = scored_before(run, ablation, arm)
        if score is not None:
            found.append((run, score))
    return found


def keep(run: Run, ablation: Ablation, measured: ArmScore) -> None:
    """Write an arm's figures down."""
    with atomic_file(marker_of(run, ablation)) as path:
        path.write_text(
            json.dumps({"arm": str(measured.arm), "metrics": measured.metrics, "missing": measured.missing}, indent=1)
        )


def sampler_of(run: Run, latents_dir: Path) -> Sampler:
    """Return a run's last checkpoint, ready to generate. BenchmarkError when it is not trained."""
    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        raise BenchmarkError(f"run {run.run_id} has no checkpoint in {run.folder}: run ablate-shareverse again.")
    return Sampler.of_checkpoint(run.preset, checkpoint, latents_dir)


@dataclass(frozen=True)
class Jury:
    """The scenes of a setting and the detector that reads them."""

    scenes: BenchScenes
    detector: Detector

    @classmethod
    def of(cls, dataset_dir: Path, run: Run, latents_dir: Path, limit: int | None = None) -> Jury:
        """Read the test scenes and calibrate the detector with the codec of a run. BenchmarkError when it fails."""
        scenes = read_scenes(dataset_dir, run.preset, limit)
        return cls(scenes, calibrated(scenes, sampler_of(run, latents_dir).round_trip))

    def score(self, entry: Entry, *, swap: bool = True) -> Outcome:
        return score(entry, self.scenes, self.detector, swap=swap)


def score_arm(arm: Arm, run: Run, latents_dir: Path, jury: Jury, sampling_steps: Sequence[int]) -> ArmScore:
    """Score an arm at each number of sampling steps."""
    sampler = sampler_of(run, latents_dir)
    first, *beside = sampling_steps
    outcome = jury.score(Ours(sampler, first, f"{arm.name}, {first} steps"))
    metrics = outcome.metrics()
    for steps in beside:
        other = jury.score(Ours(sampler, steps, f"{arm.name}, {steps} steps"), swap=False).metrics()
        metrics |= {f"{name}_{steps}_steps": other[name] for name in BESIDE}
    return ArmScore(arm, metrics, outcome.missing, outcome)


def score_arms(
    ablation: Ablation,
    arms: Sequence[Arm],
    runs: Sequence[Run],
    latents_dir: Path,
    dataset_dir: Path,
    on_progress: OnProgress = no_progress,
) -> tuple[Jury, list[ArmScore]]:
    """Score all arms of a setting on the same scenes and noise."""
    jury = Jury.of(dataset_dir, runs[0], latents_dir)
    scores = []
    for done, (arm, run) in enumerate(zip(arms, runs, strict=True)):
        on_progress(done, len(arms), str(arm))
        scores.append(score_arm(arm, run, latents_dir, jury, ablation.sampling_steps))
    on_progress(len(arms), len(arms), "")
    return jury, scores
