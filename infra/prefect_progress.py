"""Reports a long step's progress as artifacts in Prefect's UI and a line in the log, with rate and time left.

Reports are sent on a thread, and one that fails is only a line in the log: it never holds up the work.
"""

from __future__ import annotations

import contextvars
import json
import threading
import time
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from infra.reading import one_line

ARTIFACT_EVERY_S = 2.0
LOG_EVERY_S = 15.0
RETRY_S = 30.0
"""Pause after a report that failed."""
LAST_REPORT_S = 5.0
"""Limit for the last report, which shows that the step has finished."""


def describe(done: int, total: int, note: str, unit: str, started: float, first: int, now: float) -> str:
    """Return e.g. '12/36 recordings, 8.4 a minute, 2:51 left: Mini03'.

    first: what was done before this run, which the rate does not count. started, now: seconds of the monotonic clock.
    """
    text = f"{done}/{total} {unit}"
    done_in_this_run, elapsed_s = done - first, now - started
    if done_in_this_run > 0 and elapsed_s > 0:
        per_s = done_in_this_run / elapsed_s
        left_s = int((total - done) / per_s)
        text += f", {60 * per_s:.1f} a minute, {left_s // 60}:{left_s % 60:02d} left"
    return f"{text}: {note}" if note else text


class FlowProgress:
    """An `OnProgress` callback for use inside a Prefect task, on the task's own thread. Never raises, never waits."""

    def __init__(self, key: str, unit: str) -> None:
        self.unit, self.logger = unit, get_run_logger()
        self.reports = ProgressReports(key, self.logger)
        self.started: float | None = None
        self.first = 0
        self.next_artifact = self.next_log = 0.0

    def __call__(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if self.started is None:
            self.started, self.first = now, done
        finished = done >= total
        if now < self.next_artifact and not finished:
            return
        text = describe(done, total, note, self.unit, self.started, self.first, now)
        if now >= self.next_log or finished:
            self.logger.info(text)
            self.next_log = now + LOG_EVERY_S
        self.next_artifact = now + ARTIFACT_EVERY_S
        self.reports.put(100.0 * done / max(total, 1), text, last=finished)


class FlowTables:
    """Tables for use inside a Prefect task, each an artifact that is updated. Never raises, never waits for long."""

    def __init__(self) -> None:
        self.logger = get_run_logger()
        self.reports: dict[str, TableReports] = {}

    def put(self, key: str, rows: list[dict[str, Any]], description: str, *, last: bool = False) -> None:
        """Show these rows, a column per key, in place of those that the artifact `key` showed before."""
        reports = self.reports.setdefault(key, TableReports(key, self.logger))
        reports.put(rows, description, last=last)


class Reports:
    """One artifact, updated from a thread, so that a server that is down or slow does not hold up the work.

    Only the newest report is sent; older ones that still wait are dropped. The thread ends when none waits.
    """

    def __init__(self, key: str, logger: Any) -> None:
        self.key, self.logger = key, logger
        self.artifact: UUID | None = None
        self.lock = threading.Lock()
        self.waiting: tuple[Any, str] | None = None
        self.sender: threading.Thread | None = None
        self.failing = False
        self.not_before = 0.0

    def put(self, data: Any, text: str, *, last: bool = False) -> None:
        """Queue a report. The `last` one is sent at once and waited for, up to LAST_REPORT_S."""
        with self.lock:
            self.waiting = data, text
            if self.sender is None and (last or time.monotonic() >= self.not_before):
                # the artifact belongs to the task's run, which Prefect finds in the context
                context = contextvars.copy_context()
                self.sender = threading.Thread(target=context.run, args=(self.send_waiting,), daemon=True)
                self.sender.start()
            sender = self.sender
        if last and sender is not None:
            sender.join(LAST_REPORT_S)

    def send_waiting(self) -> None:
        """Send reports until none waits or one fails."""
        while True:
            with self.lock:
                report, self.waiting = self.waiting, None
                if report is None:
                    self.sender = None
                    return
            try:
                self.send(*report)
            except Exception as error:  # noqa: BLE001 - a client, a server, a network: none of it may stop the work
                with self.lock:
                    self.sender, self.not_before = None, time.monotonic() + RETRY_S
                if not self.failing:
                    why = one_line(error)
                    self.logger.warning(f"Progress ({self.key}) is not shown in Prefect for now ({why}); work goes on.")
                self.failing = True
                return
            if self.failing:
                self.logger.info(f"Progress ({self.key}) is shown in Prefect again.")
            self.failing = False

    def send(self, data: Any, text: str) -> None:
        """Create the artifact, or update it."""
        raise NotImplementedError


class ProgressReports(Reports):
    """A bar, from 0 to 100."""

    def send(self, data: float, text: str) -> None:
        if self.artifact is None:
            self.artifact = create_progress_artifact(progress=data, key=self.key, description=text)
        else:
            update_progress_artifact(artifact_id=self.artifact, progress=data, description=text)


class TableReports(Reports):
    """A table, a dictionary per row."""

    def send(self, data: list[dict[str, Any]], text: str) -> None:
        if self.artifact is None:
            self.artifact = create_table_artifact(table=data, key=self.key, description=text)
        else:
            update = ArtifactUpdate(data=json.dumps(data), description=text)  # as TableArtifact writes it
            get_client(sync_client=True).update_artifact(self.artifact, update)


def prefect_tags() -> dict[str, str]:
    """Return the tags that link an MLflow run to the flow run that works on it."""
    return {
        "prefect.flow_run_id": str(flow_run.id or ""),
        "prefect.flow_run_url": str(flow_run.ui_url or ""),
    }
