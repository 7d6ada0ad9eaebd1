"""Serve the embedded CARLA with a renderer that draws nothing but the camera's pose: `python pose_server.py PORT`.

A process of its own: `listen` and others hold the client's interpreter lock while they wait for the server.
"""

from __future__ import annotations

import sys
import threading

import numpy as np

from infra.minicarla import towns
from infra.minicarla.server import Server, Towns


class PoseRenderer:
    """Paints the camera's x and yaw, and the number of bodies, into the first pixel."""

    def render(self, cameras, bodies, weather):
        images = []
        for camera in cameras:
            image = np.full((camera.height, camera.width, 4), 255, np.uint8)
            image[0, 0, :3] = round(camera.pose[0]) % 256, round(camera.pose[4]) % 256, len(bodies)
            images.append(image)
        return images

    def result(self):
        """It is its own build, and done."""
        return self

    def cancel(self):
        return None


if __name__ == "__main__":
    source = Towns(towns.town_names, towns.load_town, towns.town_from_opendrive, lambda town: PoseRenderer())
    server = Server(int(sys.argv[1]), source)
    server.start()
    print("ready", flush=True)
    threading.Event().wait()
