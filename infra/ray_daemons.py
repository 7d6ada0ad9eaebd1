"""The daemons of a Ray that this process started: when one is killed, all of them end."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from infra.process_guard.supervisor import readable

log = logging.getLogger(__name__)


def daemons_of(ray: Any) -> list[subprocess.Popen]:
    """Return the raylet and the GCS server that this process started; none when it joined a cluster."""
    node = ray._private.worker._global_node
    started = node.all_processes if node else {}
    return [info.process for kind in ("raylet", "gcs_server") for info in started.get(kind, [])]


@contextlib.contextmanager
def ended_together(daemons: Sequence[subprocess.Popen]) -> Iterator[None]:
    """Within the block, end all daemons as soon as one has ended.

    Ray's workers end with their raylet, but a killed raylet that nobody waits for is a zombie, which they take for
    alive; and a raylet goes on for a minute without its GCS server. Actors, and what they started, would stay.
    """
    reading, writing = os.pipe()
    watched = {os.pidfd_open(daemon.pid): daemon for daemon in daemons}

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
        for descriptor in (reading, *watched):
            os.close(descriptor)
