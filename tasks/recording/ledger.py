"""The only truth on what is done: SQLite, one writer, and 'done' means that the artefact exists and its hash agrees.

A recording that a quality gate rejected is settled: it would come out the same again. One that failed for any other
reason stays open for the next run; after three runs it is quarantined: settled too, until `release_quarantined`.
A ledger that is lost or damaged is made again from the artefacts; only rejections and failures are forgotten with it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from infra.reading import one_line, read_json, read_sha256
from infra.storage import StorageError, disk_fault
from tasks.recording.errors import RecordingError

LOG = logging.getLogger(__name__)
FAILED_RUNS = 3
"""Runs in a row in which a recording failed; then it is quarantined."""
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
"""`attempts`: runs in a row in which it failed."""
COMPANIONS = ("", "-wal", "-shm", "-journal")
"""What SQLite keeps beside a database; nothing of a damaged one may meet its successor."""
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
FULL_BYTES = 2**20
"""Less free space than this is a full disk, whatever SQLite calls it."""


class Damaged(RecordingError):
    """A ledger that holds nothing to be trusted."""


class Ledger:
    """States of the recordings of one data set. Only the driver writes."""

    def __init__(self, dataset_dir: Path, log: logging.Logger | logging.LoggerAdapter = LOG) -> None:
        """Open the ledger; put a damaged one aside and begin another.

        RecordingError when another run has it open (the kernel frees it when that run dies), or when it cannot be
        locked there. StorageError when the disk cannot be written.
        """
        self.dataset_dir, self.path, self.log = dataset_dir, dataset_dir / "ledger.sqlite", log
        self.lock = locked(dataset_dir / "ledger.lock")
        try:
            try:
                self.base = opened(self.path)
            except Damaged as why:
                aside = put_aside(self.path)
                log.warning(f"{self.path} is damaged ({why}) and was put aside as {aside.name}; a new ledger is made "
                            "from the recordings that are there.")  # fmt: skip
                self.base = opened(self.path)
        except BaseException:
            self.lock.close()
            raise

    def artefact(self, recording_id: str) -> Path:
        return self.dataset_dir / "recordings" / recording_id / "recording.json"

    def is_done(self, recording_id: str) -> bool:
        """Tell whether a recording need not be made. One that the ledger does not know, as after a crash, is read
        whole and entered now; one that was changed is to be made again."""
        artefact = self.artefact(recording_id)
        if not artefact.is_file():
            return False
        row = self.query("SELECT state, sha256 FROM recordings WHERE recording_id = ?", (recording_id,))
        entered = bool(row) and row[0][0] == "done"
        try:
            if entered and row[0][1] != self.sha256_of(artefact):
                raise RecordingError(f"{artefact} was changed")
            self.check_artefact(recording_id, hashes=not entered)
        except (RecordingError, OSError) as why:
            self.log.warning(f"Recording {recording_id} is made again: {one_line(why)}.")
            return False
        if not entered:
            self.done(recording_id)
        return True

    def check_artefact(self, recording_id: str, *, hashes: bool) -> None:
        """Raise RecordingError unless every file of a recording is there and, where asked, has the hash on record."""
        artefact = self.artefact(recording_id)
        record = read_json(artefact, "nothing in it can be trusted", error=RecordingError)
        files = record.get("files")
        if record.get("recording_id") != recording_id or not isinstance(files, dict):
            raise RecordingError(f"{artefact} is not the record of {recording_id}")
        for name, digest in files.items():
            file = artefact.parent / name
            if not file.is_file() or (hashes and self.sha256_of(file) != digest):
                raise RecordingError(f"{file} is damaged or gone")

    def sha256_of(self, path: Path) -> str:
        """Return a file's hash. RecordingError where it cannot be read, or claims a size that no recording has."""
        return read_sha256(path, "nothing in it can be trusted", RecordingError)

    def done(self, recording_id: str) -> None:
        self.enter(recording_id, "done", self.sha256_of(self.artefact(recording_id)), "")

    def rejected(self, recording_id: str, reason: str) -> None:
        self.enter(recording_id, "rejected", "", reason)

    def failed(self, recording_id: str, reason: str) -> None:
        """Enter that a recording failed in this run; to be called once a run."""
        self.enter(recording_id, "failed", "", reason)

    def reasons(self, *states: str) -> dict[str, str]:
        """Return why recordings are not there, by id: of the states 'rejected', 'failed' and 'quarantined'."""
        rows = self.query("SELECT recording_id, state, attempts, reason FROM recordings ORDER BY recording_id")
        return {
            recording_id: reason
            for recording_id, state, attempts, reason in rows
            if ("quarantined" if state == "failed" and attempts >= FAILED_RUNS else state) in states
        }

    def release_quarantined(self) -> int:
        """Let quarantined recordings be tried again; return how many there were."""
        count = len(self.reasons("quarantined"))
        self.query("UPDATE recordings SET attempts = 0 WHERE state = 'failed' AND attempts >= ?", (FAILED_RUNS,))
        return count

    def enter(self, recording_id: str, state: str, sha256: str, reason: str) -> None:
        self.query(
            "INSERT INTO recordings (recording_id, state, sha256, attempts, reason) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (recording_id) DO UPDATE SET state = excluded.state, sha256 = excluded.sha256, "
            "attempts = CASE excluded.state WHEN 'failed' THEN attempts + 1 ELSE 0 END, "
            "reason = excluded.reason, changed = CURRENT_TIMESTAMP",
            (recording_id, state, sha256, int(state == "failed"), reason),
        )

    def query(self, statement: str, values: tuple = ()) -> list[tuple]:
        """Return a statement's rows. StorageError or RecordingError when the ledger cannot be read or written."""
        try:
            with sentences(self.path):
                return self.base.execute(statement, values).fetchall()
        except Damaged as why:
            raise Damaged(f"{self.path} was damaged while in use ({why}): run again, it is made anew.") from why

    def close(self) -> None:
        self.base.close()
        self.lock.close()


def locked(path: Path) -> IO[str]:
    """Return the lock file, locked. RecordingError or StorageError when it cannot be."""
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
        if error.errno in NO_LOCKS:
            raise StorageError(
                f"{path} cannot be locked ({error.strerror}), its file system has no locks: set SHAREVERSE_HOME to a "
                "folder on a local disk, or mount this one with locks."
            ) from error
        raise disk_fault(error, path) or RecordingError(f"{path} cannot be locked ({error.strerror}).") from error
    return lock


def opened(path: Path) -> sqlite3.Connection:
    """Return the ledger's database. Damaged unless all that it holds is a ledger's."""
    for name in COMPANIONS:
        companion = path.with_name(path.name + name)
        if companion.exists() and not companion.is_file():
            raise Damaged(f"{companion.name} is no file")
    base: sqlite3.Connection | None = None
    try:
        with sentences(path):
            base = sqlite3.connect(path, isolation_level=None)
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", SCHEMA):
                base.execute(statement)
            check_content(base)
            return base
    except BaseException:
        if base is not None:
            base.close()
        raise


def check_content(base: sqlite3.Connection) -> None:
    """Raise Damaged unless the database is whole and every row is one of ours."""
    ((answer, *_), *_) = base.execute("PRAGMA quick_check").fetchall()
    if answer != "ok":
        raise Damaged(one_line(ValueError(answer)))
    rows = base.execute("SELECT recording_id, state, sha256, attempts, reason, changed FROM recordings")
    for recording_id, state, sha256, attempts, reason, _ in rows:
        texts = all(isinstance(value, str) for value in (recording_id, sha256, reason))
        if not texts or state not in STATES or not isinstance(attempts, int) or attempts < 0:
            raise Damaged(f"its row {recording_id!r} is none of a ledger's")


@contextlib.contextmanager
def sentences(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into sentences: StorageError for the disk's, Damaged for what cannot be a ledger."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        raise disk_error(code, path) or named_error(code, path, error) from error
    except UnicodeDecodeError as error:
        raise Damaged(one_line(error)) from error


def disk_error(code: int, path: Path) -> StorageError | None:
    """Return what is wrong with the disk when SQLite cannot write or read, None when it is not the disk."""
    known = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS, sqlite3.SQLITE_IOERR: errno.EIO}
    number = known.get(code)
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and shutil.disk_usage(path.parent).free < FULL_BYTES:
        number = errno.ENOSPC
    elif code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) and os.statvfs(path.parent).f_flag & os.ST_RDONLY:
        number = errno.EROFS
    elif code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        number = errno.EACCES
    return disk_fault(OSError(number, ""), path) if number else None


def named_error(code: int, path: Path, error: sqlite3.Error) -> RecordingError:
    """Return the sentence on an error that is not the disk's."""
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RecordingError(f"another program has {path} open ({one_line(error)}): close it and run again.")
    return Damaged(one_line(error))


def put_aside(path: Path) -> Path:
    """Rename a damaged ledger with all that SQLite keeps beside it; return its new path."""
    number = 1
    while any(path.with_name(f"{path.name}.damaged-{number}{name}").exists() for name in COMPANIONS):
        number += 1
    aside = path.with_name(f"{path.name}.damaged-{number}")
    for name in COMPANIONS:
        companion = path.with_name(path.name + name)
        if companion.exists() or companion.is_symlink():
            try:
                os.replace(companion, aside.with_name(aside.name + name))
            except OSError as error:
                raise disk_fault(error, path.parent) or RecordingError(
                    f"the damaged {companion} cannot be put aside ({error.strerror}): move it away."
                ) from error
    return aside
