"""Blocks of ports, leased under file locks: the kernel frees them when their holder dies (trap 7: ports collide)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import IO

FIRST_PORT, LAST_PORT, BLOCK_PORTS = 11_000, 32_000, 4
"""Above the ports of common services and below the ephemeral range. A server uses RPC N, stream N+1, secondary N+2."""


class PortsError(RuntimeError):
    """No block of ports is free."""


class PortLocksError(PortsError):
    """Port locks do not work on this machine: waiting does not help."""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def lock_folder() -> Path:
    """Return the folder of this user's locks. PortLocksError when there cannot be one."""
    try:
        folder = Path(tempfile.gettempdir()) / f"shareverse-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise PortLocksError(f"the folder of port locks cannot be made ({error}): set TMPDIR to another.") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PortLocksError(f"{folder} is not a folder of this user: remove it or set TMPDIR to another place.")
    return folder


def try_lock(path: Path) -> IO[str] | None:
    """Return the lock file, open and locked, or None when another process holds it. PortLocksError when locks fail."""
    file = None
    try:
        file = open(path, "w")  # noqa: SIM115 - held open as long as the lease
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        assert file is not None
        file.close()
        return None
    except OSError as error:
        if file is not None:
            file.close()
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise PortLocksError(
            f"ports cannot be leased: {path} cannot be locked ({error.strerror}); "
            "set TMPDIR to a folder of yours on a local disk."
        ) from error
    return file


class PortLease:
    """A block of this machine's ports, held until `release` or the end of the process."""

    port: int
    file: IO[str]

    def __init__(self) -> None:
        """Lease the first free block. PortsError when there is none; OSError when the machine has no sockets left."""
        folder = lock_folder()
        for port in range(FIRST_PORT, LAST_PORT, BLOCK_PORTS):
            file = try_lock(folder / str(port))
            if file is None:
                continue
            with contextlib.ExitStack() as unless_taken:
                unless_taken.enter_context(file)
                if all(is_free(port + offset) for offset in range(BLOCK_PORTS)):
                    unless_taken.pop_all()
                    self.port, self.file = port, file
                    return
        raise PortsError(
            f"no free block of {BLOCK_PORTS} ports between {FIRST_PORT} and {LAST_PORT}: end other simulators first."
        )

    def release(self) -> None:
        """Give the ports back. May be called again."""
        self.file.close()
