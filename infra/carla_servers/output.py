"""What a server says, in files of bounded size."""

from __future__ import annotations

import logging
import logging.handlers
from collections.abc import Collection
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)
LOG_BYTES = 2_000_000
LINE_BYTES = 65_536
"""A longer line is cut into pieces: one without an end would fill the memory."""


class ServerOutput(logging.handlers.RotatingFileHandler):
    """What one launched server says: two files of at most LOG_BYTES each, and what matters of it in memory.

    The files go on over all launches; `last_line` and `seen` are of this one. When the files cannot be written, that
    is said once and the server runs on.
    """

    def __init__(self, path: Path, words: Collection[str] = ()) -> None:
        """Open the file. OSError when it cannot be."""
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", errors="replace")
        self.setFormatter(logging.Formatter("%(message)s"))
        self.words = words
        self.seen: set[str] = set()
        """Those of `words` that it said, in whatever case."""
        self.last_line = ""
        self.failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.failed:
            log.warning("The output of a server is lost: %s cannot be written.", self.baseFilename, exc_info=True)
        self.failed = True

    def drain(self, pipe: IO[bytes]) -> None:
        """Take what comes through a pipe, to its end: a full pipe would block the server (trap 6)."""
        with pipe:
            for line in iter(lambda: pipe.readline(LINE_BYTES), b""):
                text = line.decode(errors="replace").rstrip()
                self.last_line = text.strip() or self.last_line
                self.seen |= {word for word in self.words if word in text.lower()}
                self.handle(logging.makeLogRecord({"msg": "%s", "args": (text,)}))
        self.close()
