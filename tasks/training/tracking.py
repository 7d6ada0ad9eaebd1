"""A training's metrics and samples on their way to MLflow. Training goes on without it; what is missing is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow.exceptions import MlflowException

from infra.mlflow_tracking import EXPERIMENT, RunLog, TrackingError
from tasks.training.run import Run

RETRY_S = 30.0


def open_log(run: Run, tags: Mapping[str, str]) -> RunLog:
    """Open the run in MLflow, or create it with its parameters and data set; it is RUNNING then.

    TrackingError when MLflow does not take it.
    """
    marks = {"shareverse.preset": run.preset.name, **tags}
    log = RunLog(EXPERIMENT, run.run_id, run.name or f"{run.preset.name}-{run.run_id}", marks)
    try:
        log.params({"preset": run.preset.name, **run.preset.flat()})
        log.dataset(run.dataset, run.dataset_digest, run.dataset_dir)
    except MlflowException as error:
        raise TrackingError(f"MLflow did not take the parameters of run {run.run_id}: {error}") from error
    return log


Opener = Callable[[Run, Mapping[str, str]], RunLog]


class TrainingLog:
    """Forwards rows and samples as they come; after a failure they wait half a minute before the next attempt."""

    def __init__(self, run: Run, tags: Mapping[str, str], opener: Opener | None = None) -> None:
        self.run, self.tags, self.opener = run, tags, opener or open_log
        self.log: RunLog | None = None
        self.pending: list[Mapping[str, Any]] = []
        self.samples: list[str] = []
        self.reason = ""
        """Why the last attempt failed."""
        self.retry_at = 0.0

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows, and the samples they name, and send them unless MLflow failed a moment ago."""
        self.pending += rows
        self.samples += [row["sample"] for row in rows if "sample" in row]
        if time.monotonic() >= self.retry_at:
            self.flush()

    def flush(self) -> None:
        """Send what waits; on failure remember why."""
        try:
            if self.log is None:
                self.log = self.opener(self.run, self.tags)
            self.log.metrics(self.pending)
            self.pending = []
            if self.log.waiting:
                raise TrackingError(f"{len(self.log.waiting)} metric values could not be sent")
            while self.samples:
                self.log.artifacts(self.run.folder / self.samples[0], "samples")
                del self.samples[0]
            self.reason = ""
        except (TrackingError, MlflowException) as error:
            self.reason, self.retry_at = str(error), time.monotonic() + RETRY_S

    def end(self, status: str = "") -> str:
        """Try once more; end the MLflow run with `status` where one is given. Return what to tell, or nothing."""
        self.flush()
        if self.log is not None and status:
            try:
                self.log.close(status)
            except (TrackingError, MlflowException) as error:
                self.reason = str(error)
        if not self.reason:
            return ""
        return (
            f"MLflow misses some of this training ({self.reason}). All of it is safe in {self.run.spool}: "
            "run the deployment again to send it."
        )
