"""Progress of a long step: an artifact in the Prefect UI and a line in the log, each with rate and time left."""

from __future__ import annotations

import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

ARTIFACT_EVERY_S = 2.0
LOG_EVERY_S = 15.0


def describe(done: int, total: int, note: str, unit: str, started: float, first: int, now: float) -> str:
    """Return e.g. '12/36 recordings, 8.4 a minute, 2:51 left: Mini03'. Rates count from the first call's `done`."""
    text = f"{done}/{total} {unit}"
    worked, elapsed = done - first, now - started
    if worked > 0 and elapsed > 0:
        rate = worked / elapsed
        left = int((total - done) / rate)
        text += f", {60 * rate:.1f} a minute, {left // 60}:{left % 60:02d} left"
    return f"{text}: {note}" if note else text


class FlowProgress:
    """An `OnProgress` callback for use inside a Prefect task, on the task's own thread."""

    def __init__(self, key: str, unit: str) -> None:
        self.key, self.unit = key, unit
        self.logger = get_run_logger()
        self.artifact: UUID | None = None
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
        percent = 100.0 * done / max(total, 1)
        if self.artifact is None:
            self.artifact = create_progress_artifact(progress=percent, key=self.key, description=text)
        else:
            update_progress_artifact(artifact_id=self.artifact, progress=percent, description=text)
        self.next_artifact = now + ARTIFACT_EVERY_S
        if now >= self.next_log or finished:
            self.logger.info(text)
            self.next_log = now + LOG_EVERY_S
