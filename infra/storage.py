"""Files that survive a crash: written under a temporary name, synced, renamed (trap 32)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OnProgress = Callable[[int, int, str], None]
"""Called with (done, total, note) while a long step works."""

TEMPORARY_PREFIX = ".tmp-"


class StorageError(RuntimeError):
    """The disk cannot hold or give back what was asked for."""


def no_progress(done: int, total: int, note: str) -> None:
    """Report progress to nobody."""


def home() -> Path:
    """Return the state folder: `SHAREVERSE_HOME`, else `var/` in the current folder."""
    return Path(os.environ.get("SHAREVERSE_HOME") or "var").resolve()


def canonical_json(value: Any) -> str:
    """Write `value` as JSON in the one way that gives equal text for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 of the file's content as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well it becomes `path`, complete and synced, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def publish_dir(temporary: Path, path: Path) -> None:
    """Sync a complete temporary folder and give it its name, in place of what has that name."""
    for file in sorted(temporary.rglob("*")):
        if file.is_file():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
    if path.exists():
        shutil.rmtree(path)
    os.replace(temporary, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends well it replaces `path`, complete and synced, else it goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}")
    temporary.mkdir()
    try:
        yield temporary
        publish_dir(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep_temporary(folder: Path) -> int:
    """Remove what a killed writer left in `folder`; return how many things that were."""
    leftovers = list(folder.glob(f"{TEMPORARY_PREFIX}*")) if folder.is_dir() else []
    for leftover in leftovers:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    return len(leftovers)


def make_folder(path: Path, error: type[Exception] = StorageError) -> Path:
    """Make a folder where there is none; return it. `error` where a file has its name or it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        why = "a file has that name" if isinstance(cause, (FileExistsError, NotADirectoryError)) else cause.strerror
        raise error(f"{path} cannot be made a folder ({why}): name another folder.") from cause
    except ValueError as cause:  # NUL
        raise error(f"{str(path)!r} is no name of a folder ({cause}): name another folder.") from cause
    if not os.access(path, os.W_OK | os.X_OK):
        raise error(f"{path} is a folder that this user cannot write to: name another folder.")
    return path


def require_free_space(path: Path, needed_bytes: int) -> None:
    """Raise StorageError unless the disk of `path` has `needed_bytes` free."""
    path.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path).free
    if free < needed_bytes:
        raise StorageError(
            f"{path} has {free / 1e9:.1f} GB free and {needed_bytes / 1e9:.1f} GB are needed: "
            "free some space or set SHAREVERSE_HOME to a folder on a larger disk."
        )
