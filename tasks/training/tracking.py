"""A training's metrics and samples on their way to MLflow. Training goes on without it; what is missing is told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from infra.mlflow_tracking import RunLog, TrackingError
from tasks.runs.mlflow_run import UNREACHABLE, MlflowTarget, open_log
from tasks.runs.outbox import Parcel, post
from tasks.runs.run import Run

RETRY_S = 30.0


class TrainingLog:
    """Forwards rows and samples as they come; after a failure they wait half a minute before the next attempt."""

    def __init__(self, run: Run, tags: Mapping[str, str], target: MlflowTarget | None = None) -> None:
        self.run, self.tags, self.target = run, tags, target
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
                self.log = (self.target or open_log)(self.run, self.tags)
            self.log.metrics(self.pending)
            self.pending = []
            if self.log.waiting:
                raise TrackingError(f"{len(self.log.waiting)} metric values could not be sent")
            while self.samples:
                self.log.artifacts(self.run.folder / self.samples[0], "samples")
                del self.samples[0]
            self.reason = ""
        except UNREACHABLE as error:
            self.reason, self.retry_at = str(error), time.monotonic() + RETRY_S

    def end(self, status: str = "", failure: str = "") -> str:
        """Try once more; end the MLflow run with `status` where one is given, for the reason `failure`.

        Return what to tell, or nothing. What could not be sent waits in the run's outbox.
        """
        self.flush()
        if not self.reason:
            try:
                if self.log is not None and failure:
                    self.log.set_failure(failure)
                if self.log is not None and status:
                    self.log.close(status)
                return ""
            except UNREACHABLE as error:
                self.reason = str(error)
        return post(self.run, Parcel("training", spool=True, status=status, failure=failure), self.tags, self.target)
