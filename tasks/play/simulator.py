"""The embedded simulator, rendering any poses of the two cars in a scene: first pictures, and the truth beside a
generated view.

It is a server process of its own, spoken to through the carla client, as in recording. Every picture passes the
recorder's lock-step barrier (tasks/recording/barrier.py).
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import carla
import numpy as np

from infra.carla_servers import CarlaServer, SimulatorSpec
from model.camera import VIEWS
from tasks.planning.weather import WEATHERS
from tasks.play.scenes import FRAME_S, PlayScene
from tasks.recording.encode import halved, mosaic
from tasks.recording.recorder import Recorder
from tasks.recording.rig import AGENTS, Rig, open_world


class Simulator:
    """One server. `open` a scene, then `render` poses of its cars; use it from one thread."""

    def __init__(self, log_dir: Path, view_width: int, view_height: int, *, threads: int = 1) -> None:
        """`view_width`, `view_height`: pixels of a view as `render` returns it. CarlaServerError when the server does
        not start."""
        self.view_width, self.view_height = view_width, view_height
        spec = SimulatorSpec(options=("--threads", str(threads)))
        self.server = CarlaServer(spec, log_dir, "play-simulator").start(launches=1)
        self.recorder: Recorder | None = None
        self.town = ""
        self.others: list[carla.Actor] = []

    def open(self, scene: PlayScene) -> None:
        """Show a scene: its town, its weather, and what stands in it. RecordingError where something cannot."""
        client = self.server.client
        if self.recorder is None or self.town != scene.town:
            world = open_world(client, scene.town, FRAME_S)
            rig = Rig(world, 2 * self.view_width, 2 * self.view_height, ground_truth=False)
            self.recorder, self.town, self.others = Recorder(world, client, rig), scene.town, []
        for actor in self.others:
            actor.destroy()
        self.recorder.rig.teleport(client, scene.trajectories[:, 0])  # out of the way of what stands there
        self.others = [self.recorder.spawn_extra_actor(planned) for planned in scene.extra_actors]
        self.recorder.world.set_weather(carla.WeatherParameters(**WEATHERS[scene.weather]))

    def render(self, poses: np.ndarray) -> np.ndarray:
        """Return mosaics [A, H, W, 3] uint8 RGB of both cars at poses [A, 6]. RecordingError as `Rig.step`."""
        assert self.recorder is not None, "open a scene first"
        images, _ = self.recorder.rig.step(self.server.client, poses)
        views = [halved(image.bgra)[..., ::-1] for image in images]
        return np.stack([mosaic(views[agent * len(VIEWS) : (agent + 1) * len(VIEWS)]) for agent in range(AGENTS)])

    def stop(self) -> None:
        self.server.stop()

    def __enter__(self) -> Simulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
