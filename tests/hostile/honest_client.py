"""An honest client that drives a car past a camera, in step: `python honest_client.py PORT TICKS_ALONE`.

Prints "alone" with its median tick in milliseconds, goes on until a line comes on stdin, and prints what it saw as
JSON. A process of its own: the client holds the interpreter's lock while it waits.
"""

from __future__ import annotations

import json
import queue
import statistics
import sys
import threading
import time

import carla
import numpy as np


class Drive:
    """A synchronous episode with a car and a camera on it."""

    def __init__(self, port: int) -> None:
        self.client = carla.Client("127.0.0.1", port, worker_threads=8)
        self.client.set_timeout(30.0)
        self.world = self.client.load_world("Mini01")
        settings = self.world.get_settings()
        settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
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


def main() -> None:
    drive = Drive(int(sys.argv[1]))
    alone = [drive.tick() for _ in range(int(sys.argv[2]))]
    print("alone", 1e3 * statistics.median(alone), flush=True)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    beside: list[float] = []
    while not stop.is_set():
        beside.append(drive.tick())
    drive.close()
    figures = {"ticks": len(beside), "median_ms": 1e3 * statistics.median(beside), "longest_ms": 1e3 * max(beside)}
    print(json.dumps(figures | {"wrong": drive.wrong[:5]}), flush=True)


if __name__ == "__main__":
    main()
