"""The MLflow run of a training: found by its key, or created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlflow.exceptions import MlflowException

from infra.mlflow_tracking import EXPERIMENT, RunLog, TrackingError
from tasks.runs.run import Run

UNREACHABLE = (TrackingError, MlflowException, OSError)
"""What a call to MLflow raises while it is down or its disk is full; requests' errors are OSErrors."""


@dataclass(frozen=True)
class MlflowTarget:
    """A run of MLflow: found by its key in an experiment, or created under a name."""

    experiment: str
    key: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    """Parameters beside the preset's."""

    def __call__(self, run: Run, tags: Mapping[str, str]) -> RunLog:
        """Open the MLflow run, or create it with parameters and data set; it is RUNNING then.

        TrackingError when MLflow does not take it.
        """
        log = RunLog(self.experiment, self.key, self.name, {**self.tags, **tags})
        try:
            log.params({"preset": run.preset.name, **run.preset.flat(), **self.told})
            log.dataset(run.dataset, run.dataset_digest, run.dataset_dir)
        except UNREACHABLE as error:
            raise TrackingError(f"MLflow did not take the parameters of {self.name}: {error}") from error
        return log


def target_of(run: Run) -> MlflowTarget:
    """Return the MLflow run of a training."""
    return MlflowTarget(
        EXPERIMENT, run.run_id, run.name or f"{run.preset.name}-{run.run_id}", {"shareverse.preset": run.preset.name}
    )


def open_log(run: Run, tags: Mapping[str, str]) -> RunLog:
    """Open a training's own MLflow run. TrackingError when MLflow does not take it."""
    return target_of(run)(run, tags)
