"""The arms in MLflow: experiment `shared-world-bench`, a run for each task, arm and seed of a size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.prefect_progress import prefect_tags
from infra.reading import one_line
from tasks.benchmark.arms import DATASET, Ablation, Arm
from tasks.benchmark.training import is_trained
from tasks.runs.mlflow_run import MlflowTarget
from tasks.runs.outbox import Parcel, post, within_home
from tasks.runs.run import Run
from tasks.runs.spool import read_rows
from tasks.training.tracking import TrainingLog

EXPERIMENT = DATASET


def target_in(experiment: str, name: str, run: Run, told: Mapping[str, str], of: str = "") -> MlflowTarget:
    """Return an arm's MLflow run in an experiment; `told` are parameters beside the preset's.

    `of`: where one training has several runs there, which of them.
    """
    key = f"{run.run_id}-{of}" if of else run.run_id
    return MlflowTarget(experiment, key, name, {"shareverse.training": run.run_id}, told)


def publish_arm(
    target: MlflowTarget,
    arm: str,
    run: Run,
    training: TrainingLog,
    figures: Mapping[str, float],
    note: str,
    missing: Mapping[str, str],
    artifacts: Path | None = None,
) -> str:
    """Send what an arm's training and scoring gave to its MLflow run and end that; `artifacts` a folder for
    "benchmark". Return what to tell where MLflow is down (all of it waits in the run's outbox), or nothing."""
    training.rows(read_rows(run.spool))  # the arm may have been trained for another run of MLflow, or while it was down
    training.end()
    parcel = Parcel(
        "arm", step=run.preset.training.train_steps, metrics=dict(figures), note=f"{arm}: {note}",
        missing=dict(missing), status="FINISHED",
        artifacts={} if artifacts is None else {within_home(artifacts): "benchmark"},
    )  # fmt: skip
    return post(run, parcel, prefect_tags(), target)


def fail_untrained(runs: Sequence[Run], logs: Mapping[str, TrainingLog], error: BaseException) -> None:
    """End the MLflow runs of arms that have no last step as failed, each for its own reason where its spool has one."""
    for run in runs:
        if is_trained(run):
            continue
        rows = read_rows(run.spool)
        own = rows[-1].get("failure", "") if rows else ""
        logs[run.run_id].end("FAILED", own or one_line(error))


def arm_target(ablation: Ablation, arm: Arm, run: Run) -> MlflowTarget:
    """Return the MLflow run of an arm of hidden facts, one a size of the comparison."""
    setting, size = arm.setting, ablation.size
    name = f"{arm.name}, {size}, seed {arm.seed}: {setting.name}"
    told = {"task": setting.task, "distance": setting.distance, "arm": arm.name, "size": size}
    return target_in(EXPERIMENT, name, run, told, of=size)
