"""The truth beside it: the embedded simulator renders the poses of the frame that is shown, in a thread of its own.

It takes the newest frame each time and leaves out those between, and its server runs at low priority, so the model's
loop does not wait for it.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from infra.carla_servers import CarlaServerError
from infra.reading import one_line
from model.camera import FOV_DEG, camera_poses, carla_to_c2w, intrinsics
from tasks.evaluation.measures.metrics import HIGHEST_DB
from tasks.evaluation.measures.shared_world.localisation import (
    CarDetector,
    angle_between_deg,
    azimuth_deg,
    centroid,
    least_pixels,
)
from tasks.play.session import Frame, Session, jpeg
from tasks.play.simulator import Simulator
from tasks.recording.visibility import box_corners, projected_rectangle

NICENESS = 10
END_S = 5.0
IDLE_S = 0.02
"""How long to wait for the next frame."""
DETECTOR = CarDetector(strength=1.0)
"""The recorder's own rule of red paint, uncalibrated: the figure is to be watched, not to be published."""
CAR_EXTENT_M, CAR_CENTRE_M = np.array([2.09, 0.99, 0.69]), np.array([0.0, 0.0, 0.69])
"""Half sizes and centre of the agents' box, to know where in a view to look."""
BOX_MARGIN_PX = 2


def views_of(mosaic: np.ndarray) -> list[np.ndarray]:
    """Return the four views [h, w, 3] of a mosaic [2h, 2w, 3]."""
    height, width = mosaic.shape[0] // 2, mosaic.shape[1] // 2
    return [mosaic[row : row + height, column : column + width] for row in (0, height) for column in (0, width)]


def psnr_db(generated: np.ndarray, truth: np.ndarray) -> float:
    """Return the PSNR of a mosaic [H, W, 3] uint8, the mean over its views; HIGHEST_DB at most."""
    errors = [
        np.square(ours.astype(np.float32) - theirs).mean()
        for ours, theirs in zip(views_of(generated), views_of(truth), strict=True)
    ]
    return float(np.mean([min(HIGHEST_DB, 10 * np.log10(255**2 / max(error, 1e-9))) for error in errors]))


def bearing_error_deg(
    generated: np.ndarray, truth: np.ndarray, pose: np.ndarray, other_pose: np.ndarray
) -> tuple[bool, float | None]:
    """Tell whether the true mosaic [H, W, 3] uint8 shows the other car, and by how many degrees it is off in the
    generated one; None where it is not found there.

    The view where it is largest counts. Found: the largest region of red paint, in the truth inside its projected box.
    """
    best: tuple[int, float | None] = (0, None)
    corners = box_corners(other_pose, CAR_EXTENT_M, CAR_CENTRE_M)
    for ours, theirs, camera in zip(views_of(generated), views_of(truth), camera_poses(pose), strict=True):
        height, width = theirs.shape[:2]
        rectangle = projected_rectangle(corners, camera, width, height)
        if rectangle is None:
            continue
        rows, columns = (slice(max(part.start - BOX_MARGIN_PX, 0), part.stop + BOX_MARGIN_PX) for part in rectangle)
        inside = np.zeros((height, width), bool)
        inside[rows, columns] = True
        region = DETECTOR.find(theirs / 255 * inside[..., None])
        if region is None or region.sum() < max(least_pixels(region.size), best[0] + 1):
            continue
        found = DETECTOR.find(ours / 255)
        error = None
        if found is not None:
            K, c2w = intrinsics(width, height, FOV_DEG), carla_to_c2w(camera)
            error = angle_between_deg(azimuth_deg(centroid(found), K, c2w), azimuth_deg(centroid(region), K, c2w))
        best = int(region.sum()), error
    return best[0] > 0, best[1]


@dataclass(frozen=True)
class TrueFrame:
    """What the simulator shows at the poses of one generated frame."""

    frame: Frame
    pictures: np.ndarray
    """[A, H, W, 3] uint8 mosaics"""

    @cached_property
    def message(self) -> bytes:
        """What goes over the socket: a line of JSON, then a JPEG of the mosaics one above the other."""
        cars: list[dict[str, Any]] = []
        for agent, (ours, theirs) in enumerate(zip(self.frame.pictures, self.pictures, strict=True)):
            visible, error = bearing_error_deg(ours, theirs, self.frame.poses[agent], self.frame.poses[1 - agent])
            cars.append(
                {"psnr_db": round(psnr_db(ours, theirs), 2), "other_visible": visible,
                 "other_bearing_deg": None if error is None else round(error, 1)}
            )  # fmt: skip
        header = {"type": "truth", "scene": self.frame.scene, "start": self.frame.start, "number": self.frame.number,
                  "cars": cars}  # fmt: skip
        return json.dumps(header).encode() + b"\n" + jpeg(self.pictures)


class Truth:
    """Renders while it is on. `state` says how it is: "off", "starting", "on", or why it failed, in a sentence."""

    def __init__(self, session: Session, log_dir: Path) -> None:
        self.session, self.log_dir = session, log_dir
        self.state = "off"
        self.newest: TrueFrame | None = None
        self.wanted = threading.Event()
        self.ending = False
        self.thread = threading.Thread(target=self.run, name="truth", daemon=True)
        self.thread.start()

    def switch(self, on: bool) -> None:
        """Begin or stop to render. The server stays until `end`, for the next time."""
        if on:
            self.wanted.set()
        else:
            self.wanted.clear()

    def become(self, state: str) -> None:
        self.state = state
        self.session.announce()

    def end(self) -> None:
        """Stop the thread and its server. A server that is busy ends with this process."""
        self.ending = True
        self.wanted.set()
        self.thread.join(END_S)

    def run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)  # of this thread, and of the server that it starts
        simulator: Simulator | None = None
        while self.wanted.wait() and not self.ending:
            try:
                self.become("starting")
                simulator = simulator or Simulator(
                    self.log_dir, self.session.model.view_width, self.session.model.view_height
                )
                self.render(simulator)
                self.become("off")
            except (CarlaServerError, RuntimeError, OSError) as error:  # RuntimeError: the carla client's, the rig's
                self.wanted.clear()
                self.become(f"The simulator failed: {one_line(error)}. Switch the truth on again.")
                if simulator is not None:
                    simulator.stop()
                simulator = None
            self.newest = None
        if simulator is not None:
            simulator.stop()

    def render(self, simulator: Simulator) -> None:
        """Render what is shown, again and again, until it is switched off."""
        opened, last = 0, None
        pause = threading.Event()
        while self.wanted.is_set() and not self.ending:
            frame = self.session.shown()
            if frame is None or frame is last:
                pause.wait(IDLE_S)
                continue
            if frame.start != opened:
                simulator.open(self.session.scenes[frame.scene])
                opened = frame.start
            newest, last = TrueFrame(frame, simulator.render(frame.poses)), frame
            newest.message  # noqa: B018 - made here, not where it is sent
            self.newest = newest
            if self.state != "on":
                self.become("on")
