"""A training's metrics and samples on their way to MLflow. Training goes on without it; what is missing is told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow.exceptions import MlflowException

from infra.mlflow_tracking import EXPERIMENT, RunLog, TrackingError
from infra.reading import one_line
from tasks.training.outbox import Outbox, Parcel
from tasks.training.run import Run

RETRY_S = 30.0
UNREACHABLE = (TrackingError, MlflowException, OSError)
"""What a call to MLflow raises while it is down or its disk is full; requests' errors are OSErrors."""


@dataclass(frozen=True)
class Target:
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


def target_of(run: Run) -> Target:
    """Return the MLflow run of a training."""
    return Target(
        EXPERIMENT, run.run_id, run.name or f"{run.preset.name}-{run.run_id}", {"shareverse.preset": run.preset.name}
    )


def open_log(run: Run, tags: Mapping[str, str]) -> RunLog:
    """Open a training's own MLflow run. TrackingError when MLflow does not take it."""
    return target_of(run)(run, tags)


def post(run: Run, parcel: Parcel, tags: Mapping[str, str], target: Target | None = None) -> str:
    """Put what MLflow is to be given into the run's outbox, and send what can be sent; return what to tell, or nothing.

    What is not sent is sent by the next flow that works on the run (`deliver`).
    """
    chosen = target or target_of(run)
    Outbox(run.folder).put(chosen, parcel)
    return deliver(run, tags)


def deliver(run: Run, tags: Mapping[str, str]) -> str:
    """Send what waits in a run's outbox, in its order; return what to tell where something is left, or nothing."""
    outbox = Outbox(run.folder)
    try:
        for file in outbox.files():
            where, parcel = outbox.read(file)
            log = Target(**where)(run, tags)
            parcel.send(log, run)
            outbox.sent(file, log.url)
    except UNREACHABLE as error:
        return (
            f"MLflow misses some of run {run.run_id} ({error}). All of it is safe in {run.folder} and is sent by the "
            "next flow that works on this run: run the deployment again when MLflow answers."
        )
    return ""


def mark_failed(run: Run, tags: Mapping[str, str], error: BaseException, target: Target | None = None) -> str:
    """End a run's MLflow run as failed, with the reason; return what to tell, or nothing."""
    return post(run, Parcel("failure", status="FAILED", failure=one_line(error)), tags, target)


class TrainingLog:
    """Forwards rows and samples as they come; after a failure they wait half a minute before the next attempt."""

    def __init__(self, run: Run, tags: Mapping[str, str], target: Target | None = None) -> None:
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
                    self.log.tell_failure(failure)
                if self.log is not None and status:
                    self.log.close(status)
                return ""
            except UNREACHABLE as error:
                self.reason = str(error)
        return post(self.run, Parcel("training", spool=True, status=status, failure=failure), self.tags, self.target)
