"""Refusals in the log: the first few of a kind, then their number. A client can send thousands a second."""

from __future__ import annotations

import logging
import threading
import time

LINES = 5
PERIOD_S = 10.0
MAX_KINDS = 200


class RefusalLog:
    """Writes at most `LINES` lines of each kind within `PERIOD_S`, and how many were left out with the next."""

    def __init__(self, log: logging.Logger) -> None:
        self.log, self.lock = log, threading.Lock()
        self.kinds: dict[str, tuple[float, int]] = {}
        """When the period of a kind began, and its refusals since."""

    def write(self, kind: str, sentence: str) -> None:
        now = time.monotonic()
        with self.lock:
            if len(self.kinds) >= MAX_KINDS and kind not in self.kinds:
                self.kinds.clear()
            begun, count = self.kinds.get(kind, (now, 0))
            left_out = 0
            if now - begun > PERIOD_S:
                left_out, begun, count = max(0, count - LINES), now, 0
            self.kinds[kind] = begun, count + 1
        if left_out:
            self.log.warning("%s: %d more refusals were not written here", kind, left_out)
        if count < LINES:
            self.log.warning("%s refused: %s", kind, sentence)
