"""An honest client that drives a car past a camera, in step, 20 times a second: `python honest_client.py PORT SECONDS`.

That is the pace of CARLA's own synchronous examples. Prints its figures of so many seconds as JSON, goes on until a
line comes on stdin, and prints its figures since then. A process of its own: the client holds the interpreter's lock
while it waits.
"""

from __future__ import annotations

import json
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import carla
import numpy as np

STEP_S = 0.05


class Drive:
    """A synchronous episode with a car and a camera on it."""

    def __init__(self, port: int) -> None:
        self.client = carla.Client("127.0.0.1", port, worker_threads=8)
        self.client.set_timeout(30.0)
        self.world = self.client.load_world("Mini01")
        settings = self.world.get_settings()
        settings.synchronous_mode, settings.fixed_delta_seconds = True, STEP_S
        self.world.apply_settings(settings)
        library = self.world.get_blueprint_library()
        self.car = self.world.spawn_actor(library.find("vehicle.audi.tt"), carla.Transform())
        blueprint = library.find("sensor.camera.rgb")
        blueprint.set_attribute("image_size_x", "64")
        blueprint.set_attribute("image_size_y", "48")
        self.camera = self.world.spawn_actor(blueprint, carla.Transform(), attach_to=self.car)
        self.images: queue.Queue = queue.Queue()
        self.camera.listen(self.keep)
        self.steps = 0
        self.wrong: list[str] = []

    def keep(self, image: carla.Image) -> None:
        self.images.put((image.frame, image.transform.location.x, np.frombuffer(image.raw_data, np.uint8)[:3].tolist()))

    def tick(self) -> float:
        """One step; returns the seconds it took."""
        self.steps += 1
        begun = time.perf_counter()
        x = float(self.steps % 100)
        self.car.set_transform(carla.Transform(carla.Location(x, 3.0, 0.0)))
        frame = self.world.tick(30.0)
        seen, at, (blue, *_) = self.images.get(timeout=30.0)
        took = time.perf_counter() - begun
        there = self.car.get_location().x
        if (seen, round(at, 3), blue, round(there, 3)) != (frame, x, round(x) % 256, x):
            self.wrong.append(f"step {self.steps}: frame {frame}, image {seen} of {at}, painted {blue}, car at {there}")
        return took

    def close(self) -> None:
        self.camera.stop()
        time.sleep(0.2)  # trap 10: the client aborts when its threads outlive its sensors
        self.camera.destroy()
        self.car.destroy()


def keep_pace(drive: Drive, ended: Callable[[float], bool]) -> dict[str, Any]:
    """Tick each STEP_S until `ended` (given the seconds so far). A late tick is not made up, as with pygame's clock."""
    begun, took = time.perf_counter(), []
    while not ended(time.perf_counter() - begun):
        due = time.perf_counter() + STEP_S
        took.append(drive.tick())
        time.sleep(max(0.0, due - time.perf_counter()))
    return {
        "ticks": len(took),
        "per_second": len(took) / (time.perf_counter() - begun),
        "median_ms": 1e3 * statistics.median(took),
        "longest_ms": 1e3 * max(took),
    }


def main() -> None:
    drive = Drive(int(sys.argv[1]))
    seconds_alone = float(sys.argv[2])
    print(json.dumps(keep_pace(drive, lambda passed: passed > seconds_alone)), flush=True)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    beside = keep_pace(drive, lambda _: stop.is_set())
    drive.close()
    print(json.dumps(beside | {"wrong": drive.wrong[:5]}), flush=True)


if __name__ == "__main__":
    main()
