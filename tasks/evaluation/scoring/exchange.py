"""Beside a run, one of equal data and size whose agents exchange nothing: its rows in the same table."""

from __future__ import annotations

from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.scoring.score import Evaluation
from tasks.evaluation.scoring.scores import FULL_STEPS, ONE_STEP
from tasks.runs.run import Run, steps_of

WITHOUT, WITHOUT_ONE_STEP = "without_exchange", "without_exchange_1_step"
ROWS = {FULL_STEPS: WITHOUT, ONE_STEP: WITHOUT_ONE_STEP}


def steps_trained(run: Run) -> int:
    """Return the steps of a run's last checkpoint, 0 before the first."""
    checkpoint = run.latest_checkpoint()
    return steps_of(checkpoint) if checkpoint else 0


def check_without(run: Run, without: Run) -> None:
    """Refuse a run that cannot stand beside `run` as the one without exchange. EvaluationError."""
    if run.preset.transformer.cross_agent != "on":
        raise EvaluationError(
            f"run {run.run_id} exchanges nothing itself (cross_agent is {run.preset.transformer.cross_agent!r}): give "
            "the one with exchange as run_id."
        )
    if without.preset.transformer.cross_agent == "on":
        raise EvaluationError(
            f"run {without.run_id} exchanges between agents itself (cross_agent is 'on'): give one that was trained "
            "with cross_agent 'within' or 'off'."
        )
    if without.dataset_digest != run.dataset_digest:
        raise EvaluationError(
            f"run {without.run_id} was trained on data {without.dataset_digest[:12]} and run {run.run_id} on "
            f"{run.dataset_digest[:12]}: compare runs of one data set."
        )
    steps, others = steps_trained(run), steps_trained(without)
    if steps != others:
        raise EvaluationError(
            f"run {run.run_id} was trained for {steps} steps and run {without.run_id} for {others}: train both equally."
        )
    here, there = run.preset, without.preset
    if (here.video, here.codec, here.sampling) != (there.video, there.codec, there.sampling):
        raise EvaluationError(
            f"runs {run.run_id} and {without.run_id} differ in video, codec or sampling: compare runs that are equal "
            "in these."
        )


def add_without(evaluation: Evaluation, other: Evaluation) -> None:
    """Add the other run's figures as rows of this evaluation; both scored the same windows."""
    for (row, metric), values in other.scores.arrays.items():
        if row in ROWS:
            evaluation.scores.arrays[ROWS[row], metric] = values
