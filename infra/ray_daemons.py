"""The daemons of a Ray that this process started: when one is killed, or this process is, all of them end."""

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
from infra.process_guard.supervisor import readable

log = logging.getLogger(__name__)


def daemons_of(ray: Any) -> list[subprocess.Popen]:
    """Return the raylet and the GCS server that this process started; none when it joined a cluster."""
    node = ray._private.worker._global_node
    started = node.all_processes if node else {}
    return [info.process for kind in ("raylet", "gcs_server") for info in started.get(kind, [])]


@contextlib.contextmanager
def ended_together(daemons: Sequence[subprocess.Popen]) -> Iterator[None]:
    """Within the block, end all daemons and their children as soon as a daemon or this process has ended.

    Ray's workers end with their raylet, but a killed raylet that nobody waits for is a zombie, which they take for
    alive; a raylet goes on for a minute without its GCS server; and the agents, the raylet's children, first report its
    end to the GCS server, for which they wait when that has ended too. Actors, and what they started, would stay.
    """
    if not daemons:
        yield
        return
    reading, writing = os.pipe()
    with contextlib.ExitStack() as stack:
        watched = [open_pidfd(daemon.pid, stack) for daemon in daemons]
        watcher = start_watcher(daemons, stack)

        def watch() -> None:
            if reading in readable([reading, *watched]):
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
    """Start what outlives this process and ends the daemons and their children then."""
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
    """Return a descriptor of a process, closed with the stack. ProcessLookupError when it has ended."""
    descriptor = os.pidfd_open(pid)
    stack.callback(os.close, descriptor)
    return descriptor
