"""Scoring the arms of a setting, and what is kept of it: `runs/<id>/<size>-benchmark.json`, written last."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from infra.reading import read_json
from infra.storage import OnProgress, atomic_file, no_progress
from model.codec import load_codec, round_trip
from model.presets import Preset
from tasks.benchmark.arms import Ablation, Arm
from tasks.benchmark.detector import FactDetector, calibrated
from tasks.benchmark.entries import Entry, Ours
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.scenes import BenchScenes, read_scenes
from tasks.benchmark.score import Outcome, outcome_difference, score_entry
from tasks.evaluation.measures.statistics import Interval
from tasks.evaluation.scoring.sampling import Sampler
from tasks.runs.run import Run, create_run

BESIDE = ("accuracy", "accuracy_decided", "follows", "keeps", "psnr", "psnr_fact")
"""Figures that are also given at other numbers of sampling steps than the first."""
SCORING = 2
"""Number of this way of scoring: raise it when scenes, detector, sampler, sampling steps or metrics change."""
CONTROLS = ("within", "none")
LEADS = ("accuracy", "follows", "psnr_fact")
"""Figures in which arm "cross" is compared with a control: `lead_within_accuracy`, ..."""


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
    """Return an arm's figures of an earlier run, None where there are none, or of another way of scoring."""
    marker = marker_of(run, ablation)
    if not marker.exists():
        return None
    advice = "remove it and run the deployment again, to score the arm again."
    record: dict[str, Any] = read_json(marker, advice, error=BenchmarkError)
    if record.get("scoring") != SCORING:
        return None
    if not isinstance(record.get("metrics"), dict) or not isinstance(record.get("missing"), dict):
        raise BenchmarkError(f"{marker} holds no figures of an arm: {advice}")
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
    record = {"scoring": SCORING, "arm": str(measured.arm), "metrics": measured.metrics, "missing": measured.missing}
    with atomic_file(marker_of(run, ablation)) as path:
        path.write_text(json.dumps(record, indent=1))


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
    detector: FactDetector

    @classmethod
    def of(cls, dataset_dir: Path, preset: Preset, latents_dir: Path) -> Jury:
        """Read the test scenes and calibrate the detector, also behind the codec. BenchmarkError when it fails."""
        scenes = read_scenes(dataset_dir, preset)
        return cls(scenes, calibrated(scenes, partial(round_trip, load_codec(preset.codec, latents_dir))))

    def score(self, entry: Entry, *, swap: bool = True) -> Outcome:
        return score_entry(entry, self.scenes, self.detector, swap=swap)


def score_arm(arm: Arm, run: Run, latents_dir: Path, jury: Jury, sampling_steps: Sequence[int]) -> ArmScore:
    """Score an arm at each number of sampling steps."""
    sampler = sampler_of(run, latents_dir)
    first, *beside = sampling_steps
    outcome = jury.score(Ours(sampler, first, f"{arm.name}, {first} steps"))
    metrics = outcome.metrics()
    for steps in beside:
        other = jury.score(Ours(sampler, steps, f"{arm.name}, {steps} steps"), swap=False).metrics()
        for name, end in itertools.product(BESIDE, ("", "_low", "_high")):
            if name + end in other:
                metrics[f"{name}_{steps}_steps{end}"] = other[name + end]
    return ArmScore(arm, metrics, outcome.missing, outcome)


def score_arms(
    ablation: Ablation,
    arms: Sequence[Arm],
    runs: Sequence[Run],
    latents_dir: Path,
    jury: Jury,
    on_progress: OnProgress = no_progress,
) -> list[ArmScore]:
    """Score all arms of a setting on the same scenes and noise."""
    scores = []
    for done, (arm, run) in enumerate(zip(arms, runs, strict=True)):
        on_progress(done, len(arms), str(arm))
        scores.append(score_arm(arm, run, latents_dir, jury, ablation.sampling_steps))
    on_progress(len(arms), len(arms), "")
    return [with_leads(score, scores) for score in scores]


def with_leads(score: ArmScore, scores: Sequence[ArmScore]) -> ArmScore:
    """Return an arm "cross" with its leads over the controls of its seed; other arms as they are."""
    metrics = dict(score.metrics)
    for control in scores:
        if score.arm.name == "cross" and control.arm.name in CONTROLS and control.arm.seed == score.arm.seed:
            for name in LEADS:
                apart = lead(name, [score], [control])
                key = f"lead_{control.arm.name}_{name}"
                metrics |= {key: apart.mean, f"{key}_low": apart.low, f"{key}_high": apart.high}
    return dataclasses.replace(score, metrics=metrics)


def lead(name: str, ours: Sequence[ArmScore], controls: Sequence[ArmScore]) -> Interval:
    """Return a figure of some arms minus that of their controls (see `difference`); all must have been scored now."""
    ones, others = ([score.outcome for score in some if score.outcome] for some in (ours, controls))
    return outcome_difference(name, ones, others)
