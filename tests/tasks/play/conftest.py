"""A model that paints instead of generating, and a session with it."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tasks.play.scenes import read_scene
from tasks.play.session import Session

SCENE, OTHER_SCENE = "1-crossing", "6-hidden-van"


class PaintedWorld:
    """Frames whose first pixel row holds the car's place in the chunk, in colours of the cars."""

    view_width, view_height, chunk_frames = 48, 32, 8

    def __init__(self) -> None:
        self.chunk_s = 0.0
        self.chunks: list[np.ndarray] = []
        self.failure: Exception | None = None
        self.go = threading.Event()
        self.go.set()

    def start(self, first_pictures: np.ndarray, poses: np.ndarray) -> np.ndarray:
        self.failure = None
        return np.ascontiguousarray(first_pictures[:, ::4, ::4])

    def advance(self, poses: np.ndarray) -> np.ndarray:
        self.go.wait()
        time.sleep(self.chunk_s)
        if self.failure is not None:
            raise self.failure
        self.chunks.append(poses)
        frames = np.zeros((*poses.shape[:2], 64, 96, 3), np.uint8)
        frames[0], frames[1] = (90, 150, 220), (220, 160, 60)
        for agent, frame in np.ndindex(*poses.shape[:2]):
            column = int(poses[agent, frame, 0] * 3) % 90
            frames[agent, frame, 20:30, column : column + 6] = 255
        return frames


@pytest.fixture(scope="session")
def scenes():
    return {name: read_scene(name) for name in (SCENE, OTHER_SCENE)}


@pytest.fixture
def world():
    return PaintedWorld()


@pytest.fixture
def session(world, scenes, tmp_path):
    """A session that somebody watches; it is ended with the test."""
    made = Session(world, scenes, SCENE, tmp_path / "takes")
    made.watch(1)
    made.begin()
    yield made
    world.go.set()
    made.end()


def until(holds, patience_s: float = 20.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)
