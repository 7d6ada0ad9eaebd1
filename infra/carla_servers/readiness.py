"""Waits until a CARLA server is ready: it answers with the right version, has a map, ticks and renders (trap 6:
launches fail silently)."""

from __future__ import annotations

import queue
import socket
import threading
import time
from concurrent.futures import Future, wait
from typing import Any

from infra.carla_servers.errors import CarlaServerError, NotReady
from infra.process_guard import GuardedProcess

WORKER_THREADS = 28
"""Threads of the carla client. With no more threads than cameras, callbacks would hold up the world's state (trap 2:
batches that tick hang)."""
CALL_TIMEOUT_S = 5.0
"""Limit for the first call on a connection: a server that has just begun to listen may never answer it."""
IMAGE_TIMEOUT_S = 2.0
"""After so long without an image the world is ticked again: the first tick's may never come (carla #5616)."""


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


def await_image(process: GuardedProcess, client: Any, deadline: Deadline) -> None:
    """Return once the server has rendered; NotReady when it does not, or its process ends.

    The calls run on a thread of their own, because a call to a dead server returns only when its time is over.
    """
    outcome: Future[None] = Future()

    def run_probe() -> None:
        try:
            render_probe(client, deadline)
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    threading.Thread(target=run_probe, name="probe", daemon=True).start()
    while not wait([outcome], timeout=0.2).done:
        if process.poll() is not None:
            raise NotReady("the server ended before it rendered")
        deadline.left()
    try:
        outcome.result()
    except NotReady:
        raise
    except (RuntimeError, AssertionError) as error:
        raise NotReady(f"it answered but did not render: {error}") from error


def render_probe(client: Any, deadline: Deadline) -> None:
    """Tick until a camera delivers an image of one of the ticks, then restore the world's settings."""
    import carla

    client.set_timeout(deadline.left())
    world = client.get_world()
    assert world.get_map().name, "it has no map"
    settings = world.get_settings()
    original = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
    world.apply_settings(settings)
    blueprint = world.get_blueprint_library().find("sensor.camera.rgb")
    for name in ("image_size_x", "image_size_y"):
        blueprint.set_attribute(name, "16")
    camera = world.spawn_actor(blueprint, carla.Transform(carla.Location(z=50.0)))
    frames: queue.Queue[int] = queue.Queue()
    try:
        camera.listen(lambda image: frames.put(image.frame))
        first = world.tick(deadline.left())
        while not image_since(first, frames, deadline.left(IMAGE_TIMEOUT_S)):
            world.tick(deadline.left())
    finally:
        camera.stop()
        camera.destroy()
        world.apply_settings(original)


def image_since(first: int, frames: queue.Queue[int], seconds: float) -> bool:
    """Wait up to `seconds` for an image of tick `first` or a later one; return whether one came."""
    end = time.monotonic() + seconds
    try:
        while frames.get(timeout=max(0.0, end - time.monotonic())) < first:
            pass
    except queue.Empty:
        return False
    return True
