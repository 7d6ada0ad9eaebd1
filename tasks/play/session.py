"""The loop: seats and planned trajectories move the cars, the model makes their frames, chunk by chunk.

It runs in a thread of its own and waits for nobody. A chunk begins with the drivers' wishes of that moment; while it is
shown the next one is made. Frames have a time at which they are due; whoever shows them takes the newest one that is.
"""

from __future__ import annotations

import collections
import io
import json
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infra.reading import one_line
from tasks.evaluation.errors import EvaluationError
from tasks.play.cars import CarState, at_start, moved_pair
from tasks.play.errors import PlayError
from tasks.play.scenes import FRAME_S, PlayScene
from tasks.play.seats import Seat, Seats
from tasks.play.takes import MOST_FRAMES, Take
from tasks.play.world_model import PlayableModel

JPEG_QUALITY = 92
KEPT_FRAMES = 64
"""Frames that are kept for those who show them."""
HEAD_START_S = 0.03
"""So much before it must be a chunk is begun, beside the time that it takes."""


def jpeg(pictures: np.ndarray) -> bytes:
    """Return pictures [A, H, W, 3] uint8, one above the other, as one JPEG without loss in colours' sharpness."""
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(pictures))).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


@dataclass(frozen=True)
class Frame:
    """One frame of both cars."""

    scene: str
    start: int
    """How often the session had begun anew"""
    number: int
    """0: the scene's first picture"""
    due_s: float
    """When to show it, of time.monotonic"""
    states: tuple[CarState, ...]
    seats: tuple[Seat, ...]
    """Of the moment when its chunk began"""
    pictures: np.ndarray
    """[A, H, W, 3] uint8 mosaics"""
    model_fps: float
    """Frames a second that the model alone makes; 0 before it has made any"""

    @property
    def poses(self) -> np.ndarray:
        """[A, 6]"""
        return np.stack([state.pose for state in self.states])

    @cached_property
    def message(self) -> bytes:
        """What goes over the socket: a line of JSON, then a JPEG of the mosaics one above the other."""
        cars = [
            {"x": round(float(state.pose[0]), 3), "y": round(float(state.pose[1]), 3),
             "yaw": round(float(state.pose[4]), 2), "speed_mps": round(state.speed_mps, 2), "driven": bool(seat.driver),
             "answers": seat.number}
            for state, seat in zip(self.states, self.seats, strict=True)
        ]  # fmt: skip
        header = {"type": "frame", "scene": self.scene, "start": self.start, "number": self.number, "cars": cars,
                  "model_fps": round(self.model_fps, 2)}  # fmt: skip
        return json.dumps(header).encode() + b"\n" + jpeg(self.pictures)


class Session:
    """One world that goes on. Its public methods may be called from any thread."""

    def __init__(
        self, model: PlayableModel, scenes: dict[str, PlayScene], scene: str, takes_dir: Path, chunk: int = 0
    ) -> None:
        """`chunk`: new frames that are taken of each of the model's chunks; 0: all of them."""
        self.model, self.scenes, self.takes_dir = model, scenes, takes_dir
        self.chunk = min(chunk or model.chunk_frames, model.chunk_frames)
        self.seats = Seats()
        self.changed = threading.Condition()  # its lock may be taken again by the thread that holds it
        self.version = 0
        """Grows with every change of `state`"""
        self.notices: list[str] = []
        """What everybody was told, sentences"""
        self.wanted: str | None = scene
        """The scene to begin"""
        self.scene = scenes[scene]
        self.starts = 0
        self.paused = self.stopping = False
        self.watchers = 0
        self.rests = 0
        """How often the loop went to rest, paused or without anybody who watches"""
        self.frames: collections.deque[Frame] = collections.deque(maxlen=KEPT_FRAMES)
        self.states: list[CarState] = []
        self.chunk_s = 0.0
        """How long the model takes for a chunk, averaged; 0 before the first"""
        self.take: Take | None = None
        self.saving: threading.Thread | None = None
        self.thread = threading.Thread(target=self.run, name="session", daemon=True)

    def begin(self) -> None:
        """Start the loop."""
        self.thread.start()

    def end(self) -> None:
        """Stop the loop, and save what is being recorded."""
        self.stopping = True
        self.announce()
        if self.thread.is_alive():
            self.thread.join()
        self.record(False)
        if self.saving is not None:
            self.saving.join()

    def announce(self, notice: str = "") -> None:
        """Let everybody know that something changed, with a sentence or without one."""
        with self.changed:
            self.notices += [notice] if notice else []
            self.version += 1
            self.changed.notify_all()

    def choose(self, scene: str) -> None:
        """Begin a scene, or the present one anew. PlayError for one that there is not."""
        if scene not in self.scenes:
            raise PlayError(f"there is no scene {scene!a:.80}: the scenes are {', '.join(self.scenes)}.")
        with self.changed:
            self.wanted, self.paused = scene, False
        self.announce()

    def pause(self, paused: bool) -> None:
        """Stop, or go on."""
        self.paused = paused
        self.announce()

    def watch(self, more: int) -> None:
        """Count those who watch: without any, nothing is made."""
        with self.changed:
            self.watchers += more
            self.changed.notify_all()

    def record(self, on: bool) -> None:
        """Begin to record with the frame that is shown, or stop and save what was recorded."""
        with self.changed:
            ended = None
            if on and self.take is None:
                shown = self.shown()
                self.take = Take(self.scene, self.takes_dir, self.model.chunk_frames)
                self.take.add([frame for frame in self.frames if shown and frame.due_s >= shown.due_s])
            elif not on:
                ended, self.take = self.take, None
        self.announce()
        if ended is not None:
            self.saving = ended.save(self.announce)

    def state(self) -> dict[str, Any]:
        """Return what everybody should know, for the socket."""
        with self.changed:
            return {
                "type": "state", "scene": self.wanted or self.scene.name, "paused": self.paused,
                "recording": self.take is not None, "seats": [bool(seat.driver) for seat in self.seats.now()],
            }  # fmt: skip

    def shown(self, now_s: float | None = None) -> Frame | None:
        """Return the newest frame that is due, None before the first."""
        now = time.monotonic() if now_s is None else now_s
        with self.changed:
            return next((frame for frame in reversed(self.frames) if frame.due_s <= now), None)

    def run(self) -> None:
        while self.wait_for_work():
            try:
                if self.wanted is not None:
                    self.start_scene()
                else:
                    self.make_chunk()
            except (PlayError, EvaluationError, RuntimeError, ValueError, MemoryError) as error:
                self.paused = True
                reason = one_line(error) if isinstance(error, PlayError) else f"The model failed: {one_line(error)}"
                self.announce(f"{reason}. Start the scene anew.")

    def wait_for_work(self) -> bool:
        """Wait until a scene or a chunk is to be made; return False when the session ends."""
        with self.changed:
            while not self.stopping:
                if self.wanted is not None:
                    return True
                rest = self.chunk_begins_s() - time.monotonic()
                if self.paused or not self.watchers:
                    self.rests += 1
                    self.changed.wait()
                elif rest > 0:
                    self.changed.wait(rest)
                else:
                    return True
        return False

    def chunk_begins_s(self) -> float:
        """Return when to begin the next chunk: as late as it may be, so that it answers the newest keys."""
        return self.frames[-1].due_s + self.interval_s - self.chunk_s - HEAD_START_S if self.frames else 0.0

    @property
    def interval_s(self) -> float:
        """Seconds between frames: those of the world, or more where the model is slower."""
        return max(FRAME_S, self.chunk_s / self.chunk)

    def start_scene(self) -> None:
        """Put the cars to their start and show the first pictures."""
        self.record(False)
        with self.changed:
            name, self.wanted = self.wanted, None
            assert name is not None
            self.scene, self.starts = self.scenes[name], self.starts + 1
        self.states = [at_start(planned) for planned in self.scene.trajectories]
        pictures = self.model.start(self.scene.first_pictures, np.stack([state.pose for state in self.states]))
        self.publish([self.frame(0, time.monotonic(), self.states, self.seats.now(), pictures)])
        self.announce()

    def make_chunk(self) -> None:
        """Move the cars by what their drivers want now, and make their next frames."""
        begun = time.monotonic()
        seats, last = self.seats.now(), self.frames[-1]
        controls = [seat.control if seat.driver else None for seat in seats]
        states = [self.states]
        for _ in range(self.chunk):
            states.append(moved_pair(states[-1], controls, self.scene.trajectories))
        poses = np.array([[state.pose for state in pair] for pair in states[1:]]).swapaxes(0, 1)
        videos = self.model.advance(poses)
        now = time.monotonic()
        took = now - begun
        self.chunk_s = 0.7 * self.chunk_s + 0.3 * took if self.chunk_s else took
        self.states = states[-1]
        first_due = max(now, last.due_s + self.interval_s)
        self.publish(
            [
                self.frame(last.number + k + 1, first_due + k * self.interval_s, pair, seats, videos[:, k])
                for k, pair in enumerate(states[1:])
            ]
        )

    def frame(
        self, number: int, due_s: float, states: list[CarState], seats: list[Seat], pictures: np.ndarray
    ) -> Frame:
        model_fps = self.chunk / self.chunk_s if self.chunk_s else 0.0
        return Frame(self.scene.name, self.starts, number, due_s, tuple(states), tuple(seats), pictures, model_fps)

    def publish(self, frames: list[Frame]) -> None:
        """Hand frames to those who show and record them, unless the scene was begun anew meanwhile."""
        with self.changed:
            if self.frames and self.frames[-1].start != frames[0].start:
                self.frames.clear()
            self.frames.extend(frames)
            if self.take is not None:
                self.take.add(frames)
            full = self.take is not None and len(self.take.frames) >= MOST_FRAMES
        if full:
            self.record(False)
