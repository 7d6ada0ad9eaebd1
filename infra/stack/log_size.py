"""A service's log stays small: the service itself moves a full one aside."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path

MOST_BYTES = 10 * 2**20
CHECK_EVERY_S = 20.0


def rotate(log: Path, most_bytes: int = MOST_BYTES) -> bool:
    """Copy a log of more than `most_bytes` to `<name>.1` and empty it; tell whether that was needed.

    Its writers keep it open for appending, so what they write next lands in the emptied file.
    """
    if log.stat().st_size <= most_bytes:
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
