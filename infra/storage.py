"""Writes files that survive a crash: under a temporary name, synced, renamed (trap 32: temporary names first)."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from infra.installation import default_home

OnProgress = Callable[[int, int, str], None]
"""Called with (done, total, note) while a long step works."""

TEMPORARY_PREFIX = ".tmp-"


class StorageError(RuntimeError):
    """The disk cannot be written or read."""


DISK_FAULTS = {
    errno.ENOSPC: ("the disk is full", "free some space, or set SHAREVERSE_HOME to a folder on a larger disk"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or set SHAREVERSE_HOME to another disk"),
    errno.EROFS: ("the disk is read-only", "set SHAREVERSE_HOME to a folder on a disk that can be written"),
    errno.EACCES: ("permission denied", "give this user write access, or set SHAREVERSE_HOME to another folder"),
    errno.EPERM: ("permission denied", "give this user write access, or set SHAREVERSE_HOME to another folder"),
    errno.EIO: ("the disk reports an input/output error", "check the disk, or set SHAREVERSE_HOME to another one"),
    errno.EMFILE: ("too many files are open", "raise the limit of open files (ulimit -n)"),
    errno.ENFILE: ("too many files are open on this machine", "end other programs, or raise fs.file-max"),
}
"""errno -> what is wrong with the disk, and what to do about it."""


def disk_fault(error: OSError, path: Path) -> StorageError | None:
    """Return the error to raise for a disk that cannot be used, None for other errors. `path`: what was written."""
    if error.errno not in DISK_FAULTS:
        return None
    while any(part.startswith(TEMPORARY_PREFIX) for part in path.parts):
        path = path.parent  # temporary names say nothing to the reader
    what, advice = DISK_FAULTS[error.errno]
    return StorageError(f"{path} cannot be written, {what}: {advice}, then run again; what is finished is kept.")


def no_progress(done: int, total: int, note: str) -> None:
    """Report progress to nobody."""


def home() -> Path:
    """Return the state folder: `SHAREVERSE_HOME`, else `var/` in the clone, or the user's data folder."""
    return Path(os.environ.get("SHAREVERSE_HOME") or default_home()).resolve()


def canonical_json(value: Any) -> str:
    """Return `value` as JSON; equal values give equal texts."""
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


def make_folder(path: Path, error: type[Exception] = StorageError) -> None:
    """Make a folder and its parents. `error` where that fails, as where a file has one of their names."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as cause:
        raise error(f"{path} cannot be a folder, for {blocking(path)} is a file: move it away.") from cause
    except (OSError, ValueError) as cause:  # ValueError: NUL in the name
        why = getattr(cause, "strerror", None) or str(cause)
        raise error(f"{str(path)!a} cannot be a folder ({why}): name another one.") from cause


def blocking(path: Path) -> Path:
    """Return the part of a path that exists and is no folder."""
    return next((part for part in (path, *path.parents) if os.path.lexists(part) and not part.is_dir()), path)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well it becomes `path`, complete and synced, else it is removed.

    StorageError where `path` is a folder, or a folder above it is a file.
    """
    make_folder(path.parent)
    if path.is_dir():
        raise StorageError(f"{path} is a folder where a file is to be written: move it away.")
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_replaceable(path: Path) -> None:
    """Raise StorageError unless a folder can take the place of what has this name: a folder, or nothing."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        kind = "a symbolic link" if path.is_symlink() else "a file"
        raise StorageError(f"{path} is {kind} where a folder is to be written: move it away.")


def publish_dir(temporary: Path, path: Path) -> None:
    """Sync a complete temporary folder and give it its name, in place of the folder that has that name.

    StorageError where that is a symbolic link, through which nothing is removed, or a file.
    """
    for file in sorted(temporary.rglob("*")):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
    check_replaceable(path)
    if path.exists():
        shutil.rmtree(path)
    os.replace(temporary, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends well it replaces `path`, complete and synced, else it goes.

    StorageError where `path` is no folder that can be replaced (see `publish_dir`).
    """
    make_folder(path.parent)
    check_replaceable(path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}")
    temporary.mkdir()
    try:
        yield temporary
        publish_dir(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep_temporary(folder: Path) -> int:
    """Remove the temporary files and folders that a killed writer left in `folder`; return their number.

    Nothing is removed through a symbolic link: a link of a temporary name goes itself, and nothing is done where
    `folder` is a link.
    """
    leftovers = [] if folder.is_symlink() or not folder.is_dir() else list(folder.glob(f"{TEMPORARY_PREFIX}*"))
    for leftover in leftovers:
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    return len(leftovers)


def require_free_space(path: Path, needed_bytes: int) -> None:
    """Raise StorageError unless the disk of `path` has `needed_bytes` free."""
    make_folder(path)
    free = shutil.disk_usage(path).free
    if free < needed_bytes:
        raise StorageError(
            f"{path} has {free / 1e9:.1f} GB free and {needed_bytes / 1e9:.1f} GB are needed: "
            "free some space or set SHAREVERSE_HOME to a folder on a larger disk."
        )
