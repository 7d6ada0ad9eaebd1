"""Locks between processes: held by an open file, freed by the kernel when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from infra.reading import one_line
from infra.storage import StorageError

HELD = (errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def locked(
    path: Path,
    held: str,
    *,
    error: type[Exception] = StorageError,
    on_wait: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Hold the lock file `path` for a block.

    Where another process holds it: `error` with the sentence `held`, or, with `on_wait`, call that and wait for it.
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
                if cause.errno not in HELD or on_wait is None:
                    raise
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as cause:
            if cause.errno in HELD:
                raise error(held) from None
            raise error(
                f"{path} cannot be locked ({cause.strerror}): its file system has no locks; set SHAREVERSE_HOME to a "
                "folder on another disk."
            ) from cause
        yield
