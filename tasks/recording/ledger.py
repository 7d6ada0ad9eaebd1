"""The ledger decides what is done: SQLite, one writer; 'done' means that the recording exists and its hash agrees.

A recording that a quality gate rejected is settled, because it would come out the same again. One that failed for any
other reason stays open for the next run. After three runs it is quarantined: settled too, until `release_quarantined`.
A ledger that is lost or damaged is rebuilt from the recordings; only rejections and failures are forgotten with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from infra.reading import one_line, read_json, read_sha256
from infra.storage import StorageError, disk_fault
from tasks.recording.errors import RecordingError

LOG = logging.getLogger(__name__)
FAILED_RUNS = 3
"""Runs in a row in which a recording failed before it is quarantined."""
STATES = ("done", "rejected", "failed")
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
"""`attempts`: runs in a row in which the recording failed."""
EVENTS_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    at REAL NOT NULL, server TEXT NOT NULL, node TEXT NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL
)
"""
"""Why servers ended, and runs that reached their deadline (no server then). `at`: seconds since 1970. Nothing that is
decided depends on them."""
DATABASE_SUFFIXES = ("", "-wal", "-shm", "-journal")
"""SQLite's files of one database; none of a damaged one may be left beside the new one."""
STATES_AND_REASONS = f"""
SELECT recording_id, CASE WHEN state = 'failed' AND attempts >= {FAILED_RUNS} THEN 'quarantined' ELSE state END, reason
FROM recordings ORDER BY recording_id
"""
EVENTS = "SELECT at, server, node, kind, reason FROM events WHERE at >= ? ORDER BY rowid"
LOCKS_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
DISK_FULL_BYTES = 2**20
"""With less free space than this the disk is full, whatever SQLite calls the error."""


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened to a server or to the run."""

    at: float
    """Seconds since 1970."""
    server: str
    node: str
    kind: str
    reason: str
    """A sentence."""


class LedgerDamaged(RecordingError):
    """A ledger whose content cannot be trusted."""


class Ledger:
    """States of the recordings of one data set. Only the driver writes."""

    def __init__(self, dataset_dir: Path, log: logging.Logger | logging.LoggerAdapter = LOG) -> None:
        """Open the ledger; rename a damaged one and begin another.

        RecordingError when another run has it open (the kernel frees the lock when that run dies), or when its lock
        file cannot be opened. StorageError when the disk cannot be written or has no locks.
        """
        self.dataset_dir, self.path, self.log = dataset_dir, dataset_dir / "ledger.sqlite", log
        self.lock = lock_dataset(dataset_dir / "ledger.lock")
        try:
            try:
                self.database = open_database(self.path)
            except LedgerDamaged as why:
                aside = put_aside(self.path)
                log.warning(f"{self.path} is damaged ({why}) and was put aside as {aside.name}; a new ledger is made "
                            "from the recordings that are there.")  # fmt: skip
                self.database = open_database(self.path)
        except BaseException:
            self.lock.close()
            raise

    def record_file(self, recording_id: str) -> Path:
        """Return the path of recording.json, which every complete recording has."""
        return self.dataset_dir / "recordings" / recording_id / "recording.json"

    def is_done(self, recording_id: str) -> bool:
        """Tell whether a recording need not be made.

        One that the ledger does not know, as after a crash, has all its hashes checked and is marked done now. One that
        was changed is to be made again.
        """
        record_file = self.record_file(recording_id)
        if not record_file.is_file():
            return False
        rows = self.query("SELECT state, sha256 FROM recordings WHERE recording_id = ?", (recording_id,))
        marked_done = bool(rows) and rows[0][0] == "done"
        try:
            if marked_done and rows[0][1] != self.sha256_of(record_file):
                raise RecordingError(f"{record_file} was changed")
            self.check_recording(recording_id, hashes=not marked_done)
        except (RecordingError, OSError) as why:
            self.log.warning(f"Recording {recording_id} is made again: {one_line(why)}.")
            return False
        if not marked_done:
            self.mark_done(recording_id)
        return True

    def check_recording(self, recording_id: str, *, hashes: bool) -> None:
        """Raise RecordingError unless all files of a recording exist and, with `hashes`, have their recorded hashes."""
        record_file = self.record_file(recording_id)
        record = read_json(record_file, "nothing in it can be trusted", error=RecordingError)
        files = record.get("files")
        if record.get("recording_id") != recording_id or not isinstance(files, dict):
            raise RecordingError(f"{record_file} is not the record of {recording_id}")
        for name, digest in files.items():
            file = record_file.parent / name
            if not file.is_file() or (hashes and self.sha256_of(file) != digest):
                raise RecordingError(f"{file} is damaged or gone")

    def sha256_of(self, path: Path) -> str:
        """Return a file's hash. RecordingError where it cannot be read, or claims a size that no recording has."""
        return read_sha256(path, "nothing in it can be trusted", RecordingError)

    def mark_done(self, recording_id: str) -> None:
        self.write_state(recording_id, "done", self.sha256_of(self.record_file(recording_id)), "")

    def mark_rejected(self, recording_id: str, reason: str) -> None:
        self.write_state(recording_id, "rejected", "", reason)

    def mark_failed(self, recording_id: str, reason: str) -> None:
        """Count a failed run of a recording. Call it at most once per recording and run."""
        self.write_state(recording_id, "failed", "", reason)

    def reasons(self, *states: str) -> dict[str, str]:
        """Return id -> reason of the recordings in these states: 'rejected', 'failed', 'quarantined'."""
        rows = self.query(STATES_AND_REASONS)
        return {recording_id: reason for recording_id, state, reason in rows if state in states}

    def states(self) -> dict[str, str]:
        """Return id -> state of all recordings that it knows: 'done', 'rejected', 'failed', 'quarantined'."""
        return {recording_id: state for recording_id, state, _ in self.query(STATES_AND_REASONS)}

    def note(self, server: str, node: str, kind: str, reason: str) -> None:
        """Note why a server ended, or with `server` empty what ended the run."""
        self.query("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (time.time(), server, node, kind, reason))

    def events(self, since: float = 0.0) -> list[Event]:
        """Return what was noted since then (seconds since 1970), in order."""
        return [Event(*row) for row in self.query(EVENTS, (since,))]

    def release_quarantined(self) -> int:
        """Let quarantined recordings be tried again; return how many there were."""
        count = len(self.reasons("quarantined"))
        self.query("UPDATE recordings SET attempts = 0 WHERE state = 'failed' AND attempts >= ?", (FAILED_RUNS,))
        return count

    def write_state(self, recording_id: str, state: str, sha256: str, reason: str) -> None:
        self.query(
            "INSERT INTO recordings (recording_id, state, sha256, attempts, reason) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (recording_id) DO UPDATE SET state = excluded.state, sha256 = excluded.sha256, "
            "attempts = CASE excluded.state WHEN 'failed' THEN attempts + 1 ELSE 0 END, "
            "reason = excluded.reason, changed = CURRENT_TIMESTAMP",
            (recording_id, state, sha256, int(state == "failed"), reason),
        )

    def query(self, statement: str, values: tuple = ()) -> list[tuple]:
        """Run a statement and return its rows. StorageError or RecordingError when the ledger cannot be used."""
        try:
            with as_sentences(self.path):
                return self.database.execute(statement, values).fetchall()
        except LedgerDamaged as why:
            raise LedgerDamaged(f"{self.path} was damaged while in use ({why}): run again, it is made anew.") from why

    def close(self) -> None:
        self.database.close()
        self.lock.close()


def read_ledger(dataset_dir: Path, since: float = 0.0) -> tuple[dict[str, str], list[Event]]:
    """Return `states()` and `events(since)` of a data set's ledger, also while a run writes it. Nothing is changed.

    RecordingError where there is none, or it is damaged; StorageError for a disk that cannot be read.
    """
    path = dataset_dir / "ledger.sqlite"
    if not path.is_file():
        raise RecordingError(f"{dataset_dir} has no ledger: nothing was recorded there yet.")
    # without a log beside it nobody has it open, and SQLite need not leave its files there to find that out
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    with (
        as_sentences(path),
        contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)) as database,
    ):
        states = {recording_id: state for recording_id, state, _ in database.execute(STATES_AND_REASONS)}
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        rows = database.execute(EVENTS, (since,)).fetchall() if "events" in tables else []  # older ledgers have none
        return states, [Event(*row) for row in rows]


def lock_dataset(path: Path) -> IO[str]:
    """Open and lock the file `path`; return it. RecordingError or StorageError when it cannot be locked."""
    try:
        lock = open(path, "a")  # noqa: SIM115 - held as long as the ledger
    except OSError as error:
        raise disk_fault(error, path) or RecordingError(
            f"{path} cannot be opened ({error.strerror}): move it away."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        if isinstance(error, BlockingIOError):
            raise RecordingError(
                f"another run is recording into {path.parent}: wait until it ends, or end it."
            ) from None
        if error.errno in LOCKS_UNSUPPORTED:
            raise StorageError(
                f"{path} cannot be locked ({error.strerror}), its file system has no locks: set SHAREVERSE_HOME to a "
                "folder on a local disk, or mount this one with locks."
            ) from error
        raise disk_fault(error, path) or RecordingError(f"{path} cannot be locked ({error.strerror}).") from error
    return lock


def open_database(path: Path) -> sqlite3.Connection:
    """Open the ledger's database, made where there is none. LedgerDamaged where it holds anything but a ledger."""
    for name in DATABASE_SUFFIXES:
        companion = path.with_name(path.name + name)
        if companion.exists() and not companion.is_file():
            raise LedgerDamaged(f"{companion.name} is no file")
    database: sqlite3.Connection | None = None
    try:
        with as_sentences(path):
            database = sqlite3.connect(path, isolation_level=None)
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", SCHEMA, EVENTS_SCHEMA):
                database.execute(statement)
            check_content(database)
            return database
    except BaseException:
        if database is not None:
            database.close()
        raise


def check_content(database: sqlite3.Connection) -> None:
    """Raise LedgerDamaged unless the database is intact and every row is one that a ledger can hold."""
    ((answer, *_), *_) = database.execute("PRAGMA quick_check").fetchall()
    if answer != "ok":
        raise LedgerDamaged(one_line(ValueError(answer)))
    rows = database.execute("SELECT recording_id, state, sha256, attempts, reason, changed FROM recordings")
    for recording_id, state, sha256, attempts, reason, _ in rows:
        texts = all(isinstance(value, str) for value in (recording_id, sha256, reason))
        if not texts or state not in STATES or not isinstance(attempts, int) or attempts < 0:
            raise LedgerDamaged(f"its row {recording_id!r} is none of a ledger's")


@contextlib.contextmanager
def as_sentences(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into sentences: StorageError for the disk's, LedgerDamaged for what cannot be a ledger."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        raise disk_fault_of(code, path) or ledger_error(code, path, error) from error
    except UnicodeDecodeError as error:
        raise LedgerDamaged(one_line(error)) from error


def disk_fault_of(code: int, path: Path) -> StorageError | None:
    """Return the disk's fault behind an error code of SQLite, None when it is not the disk."""
    known = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS, sqlite3.SQLITE_IOERR: errno.EIO}
    number = known.get(code)
    if (
        code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
        and shutil.disk_usage(path.parent).free < DISK_FULL_BYTES
    ):
        number = errno.ENOSPC
    elif code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) and os.statvfs(path.parent).f_flag & os.ST_RDONLY:
        number = errno.EROFS
    elif code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        number = errno.EACCES
    return disk_fault(OSError(number, ""), path) if number else None


def ledger_error(code: int, path: Path, error: sqlite3.Error) -> RecordingError:
    """Return the error to raise for an error code of SQLite that is not the disk's fault."""
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RecordingError(f"another program has {path} open ({one_line(error)}): close it and run again.")
    return LedgerDamaged(one_line(error))


def put_aside(path: Path) -> Path:
    """Rename a damaged ledger and SQLite's files beside it; return the new path."""
    number = 1
    while any(path.with_name(f"{path.name}.damaged-{number}{name}").exists() for name in DATABASE_SUFFIXES):
        number += 1
    aside = path.with_name(f"{path.name}.damaged-{number}")
    for name in DATABASE_SUFFIXES:
        companion = path.with_name(path.name + name)
        if companion.exists() or companion.is_symlink():
            try:
                os.replace(companion, aside.with_name(aside.name + name))
            except OSError as error:
                raise disk_fault(error, path.parent) or RecordingError(
                    f"the damaged {companion} cannot be put aside ({error.strerror}): move it away."
                ) from error
    return aside
