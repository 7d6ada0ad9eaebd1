"""One tick, all images: nothing is used unless every sensor delivered the frame of that very tick (trap 4: frames
arrive late)."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.recording.errors import ServerFault


@dataclass(frozen=True)
class Shot:
    """One camera's image of one tick."""

    frame: int
    pose: tuple[float, float, float, float, float, float]
    """Of the camera in the world: x, y, z, pitch, yaw, roll."""
    bgra: np.ndarray
    """[h, w, 4] uint8, our own copy"""


def pose_of(transform: Any) -> tuple[float, float, float, float, float, float]:
    """Return x, y, z, pitch, yaw, roll of a carla.Transform."""
    place, turn = transform.location, transform.rotation
    return place.x, place.y, place.z, turn.pitch, turn.yaw, turn.roll


class Barrier:
    """Collects the images of `count` sensors."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.arrived: queue.SimpleQueue = queue.SimpleQueue()

    def receiver(self, sensor: int) -> Callable[[Any], None]:
        """Return the callback of a sensor. It copies the buffer, which the client reuses (trap 3: buffers are reused),
        and nothing else."""

        def receive(image: Any) -> None:
            pixels = np.frombuffer(image.raw_data, np.uint8).reshape(image.height, image.width, 4).copy()
            self.arrived.put((sensor, Shot(image.frame, pose_of(image.transform), pixels)))

        return receive

    def wait(self, frame: int, patience_s: float) -> list[Shot]:
        """Return every sensor's image of `frame`; ServerFault when one is missing or from the future."""
        deadline = time.monotonic() + patience_s
        found: dict[int, Shot] = {}
        while len(found) < self.count:
            try:
                sensor, shot = self.arrived.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                absent = sorted(set(range(self.count)) - set(found))
                raise ServerFault(
                    f"cameras {absent} sent no image of frame {frame} within {patience_s:.0f} s."
                ) from None
            if shot.frame > frame:
                raise ServerFault(f"camera {sensor} sent frame {shot.frame} while frame {frame} was expected.")
            if shot.frame == frame:
                found[sensor] = shot
        return [found[sensor] for sensor in range(self.count)]
