"""Blocks of ports, leased under file locks: the kernel frees them when their holder dies (trap 7)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import IO

FIRST, LAST, BLOCK = 11_000, 32_000, 4
"""Above what services like to use, below the ephemeral range; RPC N, stream N+1, secondary N+2."""


class PortsError(RuntimeError):
    """No block of ports is free."""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class PortLease:
    """A block of ports of this machine, ours until `release` or the end of the process."""

    def __init__(self) -> None:
        folder = Path(tempfile.gettempdir()) / f"shareverse-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for port in range(FIRST, LAST, BLOCK):
            lock = open(folder / str(port), "w")  # noqa: SIM115 - held open as long as the lease
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            if all(is_free(port + offset) for offset in range(BLOCK)):
                self.port, self.lock = port, lock
                return
            lock.close()
        raise PortsError(f"no free block of {BLOCK} ports between {FIRST} and {LAST}: end other simulators first.")

    lock: IO[str]
    port: int

    def release(self) -> None:
        with contextlib.suppress(ValueError):
            self.lock.close()
