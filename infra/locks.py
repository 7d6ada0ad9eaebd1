"""Locks between processes: the kernel frees them when their holder ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from infra.reading import one_line
from infra.storage import StorageError

HELD_ERRNOS = (errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def hold_lock(
    path: Path,
    held_message: str,
    *,
    error: type[Exception] = StorageError,
    on_wait: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Hold the lock file `path` for the length of a `with` block.

    Where another process holds it, raise `error` with `held_message`; with `on_wait`, call that and wait instead.
    `error` too where the file cannot be opened, or its file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115 - closed below, held as long as the block
    except OSError as cause:
        why = cause.strerror or one_line(cause)
        raise error(f"{path} cannot be opened ({why}): make its folder writable.") from cause
    with file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as cause:
                if cause.errno not in HELD_ERRNOS or on_wait is None:
                    raise
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as cause:
            if cause.errno in HELD_ERRNOS:
                raise error(held_message) from None
            raise error(
                f"{path} cannot be locked ({cause.strerror}): its file system has no locks; set SHAREVERSE_HOME to a "
                "folder on another disk."
            ) from cause
        yield
