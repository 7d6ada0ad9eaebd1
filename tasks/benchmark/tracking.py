"""The arms in MLflow: experiment `shared-world-bench`, a run for each task, arm and seed of a size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlflow.exceptions import MlflowException

from infra.mlflow_tracking import RunLog, TrackingError
from tasks.benchmark.arms import DATASET, Ablation, Arm
from tasks.training.run import Run
from tasks.training.spool import read_rows
from tasks.training.task import prefect_tags
from tasks.training.tracking import Opener, TrainingLog

EXPERIMENT = DATASET


def opener_of(experiment: str, name: str, told: Mapping[str, str], of: str = "") -> Opener:
    """Return what opens an arm's MLflow run in an experiment; `told` are parameters beside the preset's.

    `of`: where one training has several runs there, which of them. TrackingError when MLflow does not take it.
    """

    def open_arm(run: Run, tags: Mapping[str, str]) -> RunLog:
        key = f"{run.run_id}-{of}" if of else run.run_id
        log = RunLog(experiment, key, name, {"shareverse.training": run.run_id, **tags})
        try:
            log.params({"preset": run.preset.name, **run.preset.flat(), **told})
            log.dataset(run.dataset, run.dataset_digest, run.dataset_dir)
        except MlflowException as error:
            raise TrackingError(f"MLflow did not take the parameters of {name}: {error}") from error
        return log

    return open_arm


def publish_arm(
    opener: Opener,
    arm: str,
    run: Run,
    training: TrainingLog,
    figures: Mapping[str, float],
    note: str,
    missing: Mapping[str, str],
    artifacts: Path | None = None,
) -> None:
    """Send what an arm's training and scoring gave to its MLflow run and end that; `artifacts` a folder for
    "benchmark". TrackingError when MLflow is down."""
    training.rows(read_rows(run.spool))  # the arm may have been trained for another run of MLflow, or while it was down
    if reason := training.end():
        raise TrackingError(f"{arm}: {reason}")  # before anything is marked as done
    log = opener(run, prefect_tags())
    try:
        log.final_metrics(figures, step=run.preset.training.train_steps)
        if artifacts is not None:
            log.artifacts(artifacts, "benchmark")
        log.note(f"{arm}: {note}", missing)
        log.close("FINISHED")
    except MlflowException as error:
        raise TrackingError(
            f"MLflow did not take the figures of {arm} ({error}): run ablate-shareverse again to send them."
        ) from error


def arm_opener(ablation: Ablation, arm: Arm) -> Opener:
    """Return what opens the MLflow run of an arm of hidden facts, one a size of the comparison."""
    setting, size = arm.setting, ablation.size
    name = f"{arm.name}, {size}, seed {arm.seed}: {setting.name}"
    told = {"task": setting.task, "distance": setting.distance, "arm": arm.name, "size": size}
    return opener_of(EXPERIMENT, name, told, of=size)
