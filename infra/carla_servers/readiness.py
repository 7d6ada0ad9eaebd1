"""Waits until a CARLA server is ready: it answers with the right version, has a map, ticks and renders (trap 6:
launches fail silently)."""

from __future__ import annotations

import socket
import sys
import time
from typing import Any

from infra.carla_servers.errors import CarlaServerError, NotReady
from infra.process_guard import GuardedProcess

WORKER_THREADS = 28
"""Threads of the carla client. With no more threads than cameras, callbacks would hold up the world's state (trap 2:
batches that tick hang)."""
CALL_TIMEOUT_S = 5.0
"""Limit for the first call on a connection: a server that has just begun to listen may never answer it."""
PROBE = (sys.executable, "-m", "infra.carla_servers.render_probe")


class Deadline:
    """The moment by which a server must be ready."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.end = seconds, time.monotonic() + seconds

    def left(self, at_most: float = float("inf")) -> float:
        """Return the seconds that are left, no more than `at_most`. NotReady when there are none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise NotReady(f"it was not ready after {self.seconds:g} s")
        return min(left, at_most)


def connect(process: GuardedProcess, port: int, deadline: Deadline) -> Any:
    """Return a client once the server answers.

    NotReady when its process ends or the time is over; CarlaServerError when its version is not the client's.
    """
    import carla

    while process.poll() is None:
        try:
            # a client that found nobody listening never connects again: each attempt has its own
            socket.create_connection(("127.0.0.1", port), deadline.left(CALL_TIMEOUT_S)).close()
            client = carla.Client("127.0.0.1", port, worker_threads=WORKER_THREADS)
            client.set_timeout(deadline.left(CALL_TIMEOUT_S))
            server_version, client_version = client.get_server_version(), client.get_client_version()
        except NotReady:
            raise
        except (OSError, RuntimeError):  # not listening yet
            process.wait(deadline.left(0.1))
            continue
        if server_version != client_version:
            raise CarlaServerError(
                f"the server is CARLA {server_version} and the client {client_version}: "
                f"install `carla=={server_version}` or that server."
            )
        return client
    raise NotReady("the server ended before it answered")


def await_image(process: GuardedProcess, port: int, deadline: Deadline) -> None:
    """Return once the server has rendered; NotReady when it does not, or its process ends.

    A process of its own asks for the image: where a server stops answering, carla's client may end the whole process
    that it is in, minutes later, when the camera is collected.
    """
    probe = GuardedProcess([*PROBE, str(port), f"{deadline.left():.1f}"])
    assert probe.output is not None
    try:
        while probe.wait(0.2) is None:
            if process.poll() is not None:
                raise NotReady("the server ended before it rendered")
            deadline.left()
        words = probe.output.read().decode(errors="replace").strip().rpartition("\n")[2]
    finally:
        probe.stop()
        probe.output.close()
    if probe.returncode:
        raise NotReady(f"it answered but did not render: {words or f'the probe ended with code {probe.returncode}'}")
