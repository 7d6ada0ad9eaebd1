"""The arms in MLflow: experiment `shared-world-bench`, a run for each task, arm and seed of a size."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow.exceptions import MlflowException

from infra.mlflow_tracking import RunLog, TrackingError
from tasks.benchmark.arms import DATASET, Ablation, Arm
from tasks.training.run import Run
from tasks.training.tracking import Opener

EXPERIMENT = DATASET


def arm_opener(ablation: Ablation, arm: Arm) -> Opener:
    """Return what opens an arm's MLflow run; TrackingError when MLflow does not take it."""

    def open_arm(run: Run, tags: Mapping[str, str]) -> RunLog:
        name = f"{arm.setting.task} {arm.setting.distance} · {arm.name} · seed {arm.seed} ({ablation.size})"
        log = RunLog(EXPERIMENT, f"{run.run_id}-{ablation.size}", name, {"shareverse.training": run.run_id, **tags})
        told = {"task": arm.setting.task, "distance": arm.setting.distance, "arm": arm.name, "size": ablation.size}
        try:
            log.params({"preset": run.preset.name, **run.preset.flat(), **told})
            log.dataset(run.dataset, run.dataset_digest, run.dataset_dir)
        except MlflowException as error:
            raise TrackingError(f"MLflow did not take the parameters of {arm}: {error}") from error
        return log

    return open_arm
