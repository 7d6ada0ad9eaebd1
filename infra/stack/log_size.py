"""Keeps a service's log small: the service itself renames a full one."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path

MAX_LOG_BYTES = 10 * 2**20
CHECK_EVERY_S = 20.0


def rotate(log: Path, max_bytes: int = MAX_LOG_BYTES) -> bool:
    """Copy a log of more than `max_bytes` to `<name>.1` and empty it; return whether that was needed.

    Its writers have it open for appending, so their next lines go to the emptied file.
    """
    if log.stat().st_size <= max_bytes:
        return False
    previous = log.with_name(log.name + ".1")
    shutil.copyfile(log, previous)
    previous.chmod(0o600)
    os.truncate(log, 0)
    return True


def keep_small(log: Path) -> None:
    """Watch this process's own log for as long as the process lives."""
    never = threading.Event()

    def watch() -> None:
        while not never.wait(CHECK_EVERY_S):
            try:
                rotate(log)
            except OSError as error:
                print(f"{log} could not be moved aside: {error}", file=sys.stderr, flush=True)

    threading.Thread(target=watch, name="log-size", daemon=True).start()
