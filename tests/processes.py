"""Which processes a test has started, found by a variable in their environment, and which ports they listen on.

Everything that a process starts inherits the variable, whoever its parent is by now: Ray's daemons, detached
supervisors, servers whose script has ended.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "SHAREVERSE_TEST_MARK"
ENDS_WITHIN_S = 10.0
"""What the project promises of everything that it starts."""


@dataclass(frozen=True)
class Family:
    """The processes that inherited a mark."""

    mark: str

    @property
    def environment(self) -> dict[str, str]:
        """The environment for a process whose family this is."""
        return {**os.environ, MARK: self.mark}

    def alive(self, word: str = "") -> list[psutil.Process]:
        """Return those that are alive, with `word` in their command line; this process is none of them."""
        return [process for process, command in self.commands() if word in " ".join(command)]

    def commands(self) -> list[tuple[psutil.Process, list[str]]]:
        """Return those that are alive with their command lines, which cannot be read any more once they have ended."""
        wanted, found = f"{MARK}={self.mark}".encode(), []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                entries = Path("/proc", str(process.pid), "environ").read_bytes().split(b"\0")
                if wanted in entries:
                    found.append((process, process.cmdline()))
        return found

    def ports(self) -> set[int]:
        """Return the ports on which they listen."""
        found = set()
        for process in self.alive():
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {c.laddr.port for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        return found

    def left(self, within_s: float = ENDS_WITHIN_S) -> list[str]:
        """Wait until none is alive, so long; return the command lines of those that still are."""
        until(lambda: not self.alive(), within_s, or_fail=False)
        return [f"{process.pid}: {' '.join(command)}" for process, command in self.commands()]

    def kill(self) -> None:
        """Leave nothing behind, whatever a test did."""
        while processes := self.alive():
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=1)


@contextlib.contextmanager
def family() -> Iterator[Family]:
    """Yield a new family, and kill what is left of it in the end."""
    new = Family(uuid.uuid4().hex)
    try:
        yield new
    finally:
        new.kill()


def until(condition: Callable[[], object], seconds: float = 30.0, *, or_fail: bool = True) -> None:
    """Wait for a condition that the kernel tells nobody about."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            assert not or_fail, f"it did not happen in {seconds:g} s"
            return
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Tell whether anybody listens on a port of this machine."""
    return any(c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in psutil.net_connections("inet"))
