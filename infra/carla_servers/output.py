"""Writes a server's output to files of bounded size."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)
LOG_BYTES = 2_000_000
LINE_BYTES = 65_536
"""A longer line is read in pieces, because one without an end would fill the memory."""


class ServerOutput:
    """The output of one launch, in NAME.log and NAME.log.1 of at most LOG_BYTES each.

    The files continue over all launches; `last_line` and `seen` are of this one. When the files cannot be written, one
    warning says so and the server goes on.
    """

    def __init__(self, path: Path, words: Collection[str] = ()) -> None:
        """Open the file. OSError when it cannot be opened. `words`: lower-case texts to look for in the output."""
        self.path, self.words = path, words
        self.file = open(path, "ab", 0)  # noqa: SIM115 - open as long as the server runs
        self.last_line = ""
        self.seen: set[str] = set()
        """Those of `words` that appeared, in upper or lower case."""
        self.failed = False

    def drain(self, pipe: IO[bytes]) -> None:
        """Read a pipe to its end. A full pipe would block the server (trap 6: launches fail silently)."""
        with pipe:
            for line in iter(lambda: pipe.readline(LINE_BYTES), b""):
                text = line.decode(errors="replace").strip()
                self.last_line = text or self.last_line
                self.seen |= {word for word in self.words if word in text.lower()}
                try:
                    self.write(line)
                except OSError as error:
                    if not self.failed:
                        log.warning("The output of a server is lost: %s cannot be written (%s).", self.path, error)
                    self.failed = True
        self.close()

    def write(self, line: bytes) -> None:
        if self.file.tell() + len(line) > LOG_BYTES:
            os.replace(self.path, f"{self.path}.1")
            full, self.file = self.file, open(self.path, "ab", 0)  # noqa: SIM115
            full.close()
        self.file.write(line)

    def close(self) -> None:
        self.file.close()
