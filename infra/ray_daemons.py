"""Ends the daemons of a Ray that this process started, all together, when one of them or this process is killed."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from infra.process_guard import end_together
from infra.process_guard.supervisor import wait_readable

log = logging.getLogger(__name__)


def daemons_of(ray: Any) -> list[subprocess.Popen]:
    """Return the raylet and the GCS server that this process started; none when it joined a cluster."""
    node = ray._private.worker._global_node
    processes = node.all_processes if node else {}
    return [info.process for kind in ("raylet", "gcs_server") for info in processes.get(kind, [])]


@contextlib.contextmanager
def end_daemons_together(daemons: Sequence[subprocess.Popen]) -> Iterator[None]:
    """Within the block, end all daemons and their children as soon as a daemon or this process has ended.

    Ray alone does not achieve this, and actors with their simulators would stay. Workers end with their raylet, but
    take a killed one that nobody waits for, a zombie, for alive; a raylet goes on for a minute without its GCS server;
    and the agents, the raylet's children, report its end to the GCS server first and wait for it when it has ended too.
    """
    if not daemons:
        yield
        return
    reading, writing = os.pipe()
    with contextlib.ExitStack() as stack:
        watched = [open_pidfd(daemon.pid, stack) for daemon in daemons]
        watcher = start_watcher(daemons, stack)

        def watch() -> None:
            if reading in wait_readable([reading, *watched]):
                return
            log.error("A daemon of the local Ray was killed: ending Ray.")
            for daemon in daemons:
                daemon.kill()
                daemon.wait()

        thread = threading.Thread(target=watch, name="Ray's daemons", daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.close(writing)
            thread.join()
            os.close(reading)
            watcher.kill()
            watcher.wait()


def start_watcher(daemons: Sequence[subprocess.Popen], stack: contextlib.ExitStack) -> subprocess.Popen:
    """Start a process that outlives this one and then ends the daemons and their children."""
    watched = [open_pidfd(pid, stack) for pid in (os.getpid(), *(daemon.pid for daemon in daemons))]
    children = []
    for child in (child for daemon in daemons for child in psutil.Process(daemon.pid).children()):
        with contextlib.suppress(ProcessLookupError):  # a worker that has ended
            children.append(open_pidfd(child.pid, stack))
    return subprocess.Popen(
        [sys.executable, "-I", "-S", end_together.__file__, *map(str, watched), "--", *map(str, children)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=[*watched, *children], start_new_session=True,
    )  # fmt: skip


def open_pidfd(pid: int, stack: contextlib.ExitStack) -> int:
    """Return a pidfd of a process, closed with the stack. ProcessLookupError when the process has ended."""
    descriptor = os.pidfd_open(pid)
    stack.callback(os.close, descriptor)
    return descriptor
