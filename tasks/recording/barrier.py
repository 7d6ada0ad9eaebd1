"""Waits for the images of one tick: none is used unless every camera delivered the frame of that very tick (trap 4:
frames arrive late)."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.recording.errors import ServerFault


@dataclass(frozen=True)
class CameraImage:
    """One camera's image of one tick."""

    frame: int
    pose: tuple[float, float, float, float, float, float]
    """Of the camera in CARLA's world: x, y, z in metres; pitch, yaw, roll in degrees."""
    bgra: np.ndarray
    """[h, w, 4] uint8, a copy of the client's buffer"""


def pose_from_transform(transform: Any) -> tuple[float, float, float, float, float, float]:
    """Return x, y, z, pitch, yaw, roll of a carla.Transform."""
    location, rotation = transform.location, transform.rotation
    return location.x, location.y, location.z, rotation.pitch, rotation.yaw, rotation.roll


class Barrier:
    """Collects the images of `cameras` cameras, which arrive on the client's threads."""

    def __init__(self, cameras: int) -> None:
        self.cameras = cameras
        self.arrived: queue.SimpleQueue[tuple[int, CameraImage]] = queue.SimpleQueue()

    def callback(self, camera: int) -> Callable[[Any], None]:
        """Return the callback for `sensor.listen`. It only copies the buffer (trap 3: buffers are reused)."""

        def receive(image: Any) -> None:
            pixels = np.frombuffer(image.raw_data, np.uint8).reshape(image.height, image.width, 4).copy()
            self.arrived.put((camera, CameraImage(image.frame, pose_from_transform(image.transform), pixels)))

        return receive

    def wait(self, frame: int, timeout_s: float) -> list[CameraImage]:
        """Return every camera's image of `frame`, dropping older ones. ServerFault when one is missing or newer."""
        deadline = time.monotonic() + timeout_s
        images: dict[int, CameraImage] = {}
        while len(images) < self.cameras:
            try:
                camera, image = self.arrived.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                missing = sorted(set(range(self.cameras)) - set(images))
                raise ServerFault(
                    f"cameras {missing} sent no image of frame {frame} within {timeout_s:.0f} s."
                ) from None
            if image.frame > frame:
                raise ServerFault(f"camera {camera} sent frame {image.frame} while frame {frame} was expected.")
            if image.frame == frame:
                images[camera] = image
        return [images[camera] for camera in range(self.cameras)]
