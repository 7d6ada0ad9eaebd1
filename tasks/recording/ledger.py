"""The only truth on what is done: SQLite, one writer, and 'done' means that the artefact exists and its hash agrees.

A recording that a quality gate rejected is settled too: it would come out the same again. One that failed for any other
reason stays open. The ledger of a finished recording can be lost: it is entered again from the artefact.
"""

from __future__ import annotations

import fcntl
import sqlite3
from pathlib import Path

from infra.storage import sha256_file
from tasks.recording.errors import RecordingError

SCHEMA = """
CREATE TABLE IF NOT EXISTS recordings (
    recording_id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('done', 'rejected', 'failed')),
    sha256 TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    changed TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
)
"""


class Ledger:
    """States of the recordings of one data set. Only the driver writes."""

    def __init__(self, dataset_dir: Path) -> None:
        """Open the ledger. RecordingError when another run has it open; the kernel frees it when that run dies."""
        self.dataset_dir = dataset_dir
        self.lock = open(dataset_dir / "ledger.lock", "w")  # noqa: SIM115 - held as long as the ledger
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.lock.close()
            raise RecordingError(f"another run is recording into {dataset_dir}: wait until it ends.") from None
        self.base = sqlite3.connect(dataset_dir / "ledger.sqlite", isolation_level=None)
        self.base.execute("PRAGMA journal_mode=WAL")
        self.base.execute("PRAGMA synchronous=FULL")
        self.base.execute(SCHEMA)

    def artefact(self, recording_id: str) -> Path:
        return self.dataset_dir / "recordings" / recording_id / "recording.json"

    def is_done(self, recording_id: str) -> bool:
        """Tell whether a recording need not be made. One that was finished just before a crash is entered now."""
        artefact = self.artefact(recording_id)
        if not artefact.exists():
            return False
        row = self.base.execute(
            "SELECT state, sha256 FROM recordings WHERE recording_id = ?", (recording_id,)
        ).fetchone()
        found = sha256_file(artefact)
        if row is None or row[0] != "done":
            self.done(recording_id)  # the folder appears whole or not at all
            return True
        return row[1] == found

    def done(self, recording_id: str) -> None:
        self.enter(recording_id, "done", sha256_file(self.artefact(recording_id)), "")

    def rejected(self, recording_id: str, reason: str) -> None:
        self.enter(recording_id, "rejected", "", reason)

    def failed(self, recording_id: str, reason: str) -> None:
        self.enter(recording_id, "failed", "", reason)

    def reasons(self, *states: str) -> dict[str, str]:
        """Return why recordings in these states are not there, by id."""
        rows = self.base.execute("SELECT recording_id, state, reason FROM recordings ORDER BY recording_id")
        return {recording_id: reason for recording_id, state, reason in rows if state in states}

    def enter(self, recording_id: str, state: str, sha256: str, reason: str) -> None:
        self.base.execute(
            "INSERT INTO recordings (recording_id, state, sha256, attempts, reason) VALUES (?, ?, ?, 1, ?) "
            "ON CONFLICT (recording_id) DO UPDATE SET state = excluded.state, sha256 = excluded.sha256, "
            "attempts = attempts + 1, reason = excluded.reason, changed = CURRENT_TIMESTAMP",
            (recording_id, state, sha256, reason),
        )

    def close(self) -> None:
        self.base.close()
        self.lock.close()
