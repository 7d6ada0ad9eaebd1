"""The renderer of the current town, built on a thread of its own. Those who wait for it release the world's lock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from infra.minicarla.scenery import Body, Camera, Town, Weather

log = logging.getLogger(__name__)


class Renders(Protocol):
    """The world's interface to a renderer."""

    def render(self, cameras: Sequence[Camera], bodies: Sequence[Body], weather: Weather) -> list[np.ndarray]:
        """Return one uint8 [height, width, 4] BGRA array per camera."""
        ...


class Build(Protocol):
    """A renderer that is still to be built."""

    def result(self) -> Renders:
        """Build the renderer and return it; raise what went wrong."""
        ...

    def cancel(self) -> None:
        """Make `result` give up soon. Called from another thread, possibly before `result` or after it."""
        ...


class Scene:
    """A town and its renderer; neither `renderer` nor `error` is set while it is being built."""

    def __init__(self, town: Town, build: Build) -> None:
        self.town, self.build = town, build
        self.renderer: Renders | None = None
        self.error: Exception | None = None


class Scenes:
    """Holds the scene of one town, so that memory does not grow with the number of towns.

    Every method but `build_scene` is called with the world's lock held.
    """

    def __init__(self, begin: Callable[[Town], Build], lock: threading.RLock) -> None:
        self.begin = begin
        self.changed = threading.Condition(lock)
        """Notified when a scene is ready, has failed or is dropped. Waiting for it releases the world's lock."""
        self.scene: Scene | None = None

    def prepare(self, town: Town, *, retry: bool = True) -> Scene:
        """Return the town's scene. Start building it unless that has begun, or has failed and `retry` is off."""
        scene = self.scene
        if scene is None or scene.town != town or (scene.error is not None and retry):
            self.drop()
            scene = self.scene = Scene(town, self.begin(town))
            threading.Thread(target=self.build_scene, args=(scene,), daemon=True).start()
        return scene

    def keep_only(self, town: Town) -> None:
        """Drop the scene, and cancel its build, unless it is this town's."""
        if self.scene is not None and self.scene.town != town:
            self.drop()
        self.changed.notify_all()

    def drop(self) -> None:
        if self.scene is not None:
            self.scene.build.cancel()
            self.scene = None

    def build_scene(self, scene: Scene) -> None:
        """Build a scene and wake those who wait for it."""
        begun = time.monotonic()
        try:
            renderer = scene.build.result()
        except Exception as error:
            with self.changed:
                if scene is self.scene:  # nobody waits for one that was dropped
                    unforeseen = not isinstance(error, ValueError)
                    log.error("the scenery of %s was not built: %s", scene.town.name, error, exc_info=unforeseen)
                scene.error = error
                self.changed.notify_all()
        else:
            log.info("scenery of %s ready after %.1f s", scene.town.name, time.monotonic() - begun)
            with self.changed:
                scene.renderer = renderer
                self.changed.notify_all()
