"""Asks a CARLA server for an image: `python -m infra.carla_servers.render_probe PORT SECONDS`.

A process of its own (readiness.py). It ends with code 0 once an image came, and with 1 and the reason as its last line
where none came.
"""

from __future__ import annotations

import os
import queue
import sys
import time
from typing import Any

from infra.carla_servers.errors import NotReady
from infra.carla_servers.readiness import WORKER_THREADS, Deadline

IMAGE_TIMEOUT_S = 2.0
"""After so long without an image the world is ticked again: the first tick's may never come (carla #5616)."""


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


def main() -> None:
    """Ask the server of the command line. Ends without collecting the client's objects, which may hang or abort."""
    import carla

    code = 0
    try:
        client = carla.Client("127.0.0.1", int(sys.argv[1]), worker_threads=WORKER_THREADS)
        render_probe(client, Deadline(float(sys.argv[2])))
    except (NotReady, RuntimeError, AssertionError) as error:
        print(" ".join(str(error).split()), flush=True)
        code = 1
    os._exit(code)


if __name__ == "__main__":
    main()
