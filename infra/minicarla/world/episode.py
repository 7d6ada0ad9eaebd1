"""The world of one server: the town, its actors, time, and what every tick sends."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import msgpack
import numpy as np

from infra.minicarla.protocol.rpc import RpcError
from infra.minicarla.protocol.streams import StreamServer
from infra.minicarla.protocol.wire import (
    SENSOR_HEADER,
    WORLD_STREAM,
    SensorType,
    actor_state,
    image_message,
    message,
    token,
    world_message,
)
from infra.minicarla.scenery import Pose, Town, Weather
from infra.minicarla.world import blueprints
from infra.minicarla.world.actors import Actor, overlap
from infra.minicarla.world.scenes import Build, Scenes
from infra.minicarla.world.transforms import compose

Result = TypeVar("Result")

DEFAULT_STEP_S = 0.05
MAX_IMAGE_SIDE = 4096


class Settings:
    """Episode settings; `wire` is CARLA's list, of which the embedded server obeys the first three."""

    def __init__(self, wire: list | None = None) -> None:
        self.wire = wire or [False, False, [False], True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True]

    @property
    def synchronous(self) -> bool:
        return bool(self.wire[0])

    @property
    def rendering(self) -> bool:
        return not self.wire[1]

    @property
    def step_s(self) -> float:
        """Simulated time a tick: fixed_delta_seconds, or 0.05 s."""
        fixed = self.wire[2]
        return float(fixed[1]) if fixed[0] else DEFAULT_STEP_S


class World:
    """State of the simulation. Everything is called with `lock` held; `tick` releases it while it waits for scenery."""

    def __init__(
        self, town: Town, build_renderer: Callable[[Town], Build], streams: StreamServer, lock: threading.RLock
    ) -> None:
        self.streams, self.scenes = streams, Scenes(build_renderer, lock)
        self.waiting_ticks: collections.deque[object] = collections.deque()
        self.definitions = blueprints.library()
        self.settings = Settings()
        self.weather = Weather()
        self.actors: dict[int, Actor] = {}
        self.episode = self.frame = 0
        self.elapsed_s = 0.0
        self.started = time.monotonic()
        self.next_actor, self.next_stream = 1, WORLD_STREAM + 1
        with lock:
            self.begin_episode(town)

    # -- episodes ---------------------------------------------------------------------------------------------------

    def begin_episode(self, town: Town, *, reset_settings: bool = True) -> None:
        """Put an empty `town` in place of everything. Its scenery is built when the first camera is spawned.

        A tick that waits for the scenery of the old episode is refused.
        """
        for actor in list(self.actors.values()):
            self.streams.forget(actor.stream)
        self.actors.clear()
        self.town = town
        self.scenes.keep(town)
        self.episode += 1
        self.map_changed = True
        self.weather = Weather()
        if reset_settings:
            self.settings = Settings()
        self.spectator = self.add_actor("spectator", 0, {}, (0.0, 0.0, 10.0, 0.0, 0.0, 0.0))

    def with_lock_released(self, job: Callable[[], Result]) -> Result:
        """Do something long on a thread of its own and wait for it with the lock released; raises what it raises."""

        def wake(_: Future[Result]) -> None:
            with self.scenes.changed:
                self.scenes.changed.notify_all()

        pool = ThreadPoolExecutor(1)
        future = pool.submit(job)
        future.add_done_callback(wake)
        self.scenes.changed.wait_for(future.done)
        pool.shutdown(wait=False)  # its thread may still want the lock, to wake somebody
        return future.result()

    # -- actors -----------------------------------------------------------------------------------------------------

    def find(self, actor_id: int) -> Actor:
        actor = self.actors.get(actor_id)
        if actor is None:
            raise RpcError(f"unable to find actor with id {actor_id}: it was destroyed or never spawned")
        return actor

    def add_actor(
        self, blueprint: str, uid: int, attributes: dict[str, list], pose: Pose, parent: Actor | None = None
    ) -> Actor:
        actor = Actor(self.next_actor, blueprint, uid, attributes, pose)
        if parent is not None:
            actor.parent, actor.offset, actor.pose = parent.id, pose, compose(parent.pose, pose)
        self.next_actor += 1
        if actor.sensor_type is not None:
            actor.stream = self.next_stream
            actor.token = token(actor.stream, self.streams.port)
            self.next_stream += 1
        self.actors[actor.id] = actor
        return actor

    def spawn(self, description: list, pose: Pose, parent_id: int = 0) -> Actor:
        """Spawn what an ActorDescription names; RpcError for an unknown blueprint, a bad value or a taken place."""
        _, name, given = description
        definition = self.definitions.get(name)
        if definition is None:
            raise RpcError(f"unable to spawn actor: there is no blueprint {name!r}")
        attributes = {attribute[0]: attribute[:3] for attribute in definition[3]}
        attributes |= {attribute[0]: list(attribute) for attribute in given}
        parent = self.find(parent_id) if parent_id else None
        actor = self.add_actor(name, definition[0], attributes, pose, parent)
        reason = self.unfit(actor)
        if reason:
            del self.actors[actor.id]
            raise RpcError(reason)
        if name in blueprints.CAMERAS and self.settings.rendering:
            self.scenes.prepare(self.town)  # images can follow the sooner
        return actor

    def unfit(self, actor: Actor) -> str:
        """Return why a fresh actor cannot stay, or nothing."""
        try:
            if actor.model is not None:
                _ = actor.rgb
                taken = [other for other in self.bodies() if other is not actor and overlap(actor, other)]
                return "Spawn failed because of collision at spawn position" if taken else ""
            if actor.blueprint in blueprints.CAMERAS:
                width, height, fov = actor.lens
                if not (
                    1 <= width <= MAX_IMAGE_SIDE
                    and 1 <= height <= MAX_IMAGE_SIDE
                    and 1 <= fov < 179
                    and actor.period_s >= 0
                ):
                    return f"unable to spawn {actor.blueprint}: image {width}x{height}, fov {fov} is out of range"
        except ValueError as error:
            return f"unable to spawn {actor.blueprint}: bad attribute ({error})"
        return ""

    def destroy(self, actor_id: int) -> None:
        """Remove an actor and the sensors attached to it."""
        if actor_id not in self.actors or actor_id == self.spectator.id:
            raise RpcError("unable to destroy actor: not found")
        for child in [actor.id for actor in self.actors.values() if actor.parent == actor_id]:
            self.destroy(child)
        self.streams.forget(self.actors.pop(actor_id).stream)

    def place(self, actor: Actor, pose: Pose) -> None:
        """Teleport an actor (an attached one: relative to its parent) with everything attached to it."""
        if actor.parent:
            actor.offset, actor.pose = pose, compose(self.actors[actor.parent].pose, pose)
        else:
            actor.pose = pose
        for child in [other for other in self.actors.values() if other.parent == actor.id]:
            self.place(child, child.offset or child.pose)

    def bodies(self) -> list[Actor]:
        return [actor for actor in self.actors.values() if actor.model is not None]

    def cameras(self) -> list[Actor]:
        return [actor for actor in self.actors.values() if actor.blueprint in blueprints.CAMERAS]

    # -- time -------------------------------------------------------------------------------------------------------

    def tick(self) -> int:
        """Advance one step; send the state first, then images and collisions; return the frame.

        The order matters: a client in `apply_batch_sync(.., True)` waits for the state with Python's lock held, which
        image callbacks would want. In synchronous mode a step whose images need scenery that is still being built waits
        for it first, with the lock released. In asynchronous mode steps go on, and images begin when they can.
        """
        if self.settings.synchronous:
            with self.turn() as wait:
                self.await_scenery(wait)
            if not self.settings.synchronous:  # another client's doing: the server steps by itself now
                return self.frame + 1
        step = self.settings.step_s
        self.frame += 1
        self.elapsed_s += step
        self.coast(step)
        self.send_state(step)
        if self.settings.rendering:
            self.send_images()
        self.send_collisions()
        return self.frame

    @contextmanager
    def turn(self) -> Iterator[Callable[[], None]]:
        """Let the ticks through in the order in which they came; gives the function that waits for a change.

        RpcError when another episode begins meanwhile.
        """
        episode, own = self.episode, object()

        def wait() -> None:
            self.scenes.changed.wait()
            if self.episode != episode:
                raise RpcError("another episode began before this tick: fetch the new world, then tick that")

        self.waiting_ticks.append(own)
        try:
            while self.waiting_ticks[0] is not own:
                wait()
            yield wait
        finally:
            self.waiting_ticks.remove(own)
            self.scenes.changed.notify_all()

    def await_scenery(self, wait: Callable[[], None]) -> None:
        """Wait until the next step's images can be drawn; RpcError when the scenery cannot be built."""
        if not self.needs_images():
            return
        scene = self.scenes.prepare(self.town)
        while scene.renderer is None and scene.error is None:
            wait()
        if scene.error is not None:
            raise RpcError(f"the scenery of {self.town.name} cannot be built: {scene.error}") from scene.error

    def needs_images(self) -> bool:
        return (
            self.settings.synchronous
            and self.settings.rendering
            and any(self.streams.has_readers(camera.stream) for camera in self.cameras())
        )

    def coast(self, step_s: float) -> None:
        """Move actors that were given a target velocity; there is no other physics."""
        for actor in list(self.actors.values()):
            if actor.physics and not actor.parent and any(actor.velocity):
                x, y, z = (actor.pose[i] + actor.velocity[i] * step_s for i in range(3))
                self.place(actor, (x, y, z, *actor.pose[3:]))

    def send_state(self, step_s: float) -> None:
        states = [
            actor_state(a.id, a.pose, a.velocity, a.angular_velocity, a.control if a.is_vehicle else None)
            for a in self.actors.values()
        ]
        platform_s = time.monotonic() - self.started
        parts = world_message(self.episode, self.frame, self.elapsed_s, platform_s, step_s, self.map_changed, states)
        self.map_changed = False
        self.streams.publish(WORLD_STREAM, parts, may_drop=False)

    def send_images(self) -> None:
        """Render every camera that has a reader, all in one call."""
        due = [camera for camera in self.cameras() if self.is_due(camera)]
        renderer = self.scenes.prepare(self.town, retry=False).renderer if due else None
        if renderer is None:
            return
        bodies = [actor.body() for actor in self.bodies()]
        images = renderer.render([actor.camera() for actor in due], bodies, self.weather)
        for actor, image in zip(due, images, strict=True):
            actor.last_image_s = self.elapsed_s
            pixels = np.ascontiguousarray(image).reshape(-1).data
            kind: Any = actor.sensor_type
            parts = image_message(kind, self.frame, self.elapsed_s, actor.pose, *actor.lens, pixels)
            self.streams.publish(actor.stream, parts, may_drop=not self.settings.synchronous)

    def is_due(self, actor: Actor) -> bool:
        return self.streams.has_readers(actor.stream) and self.elapsed_s - actor.last_image_s >= actor.period_s - 1e-6

    def send_collisions(self) -> None:
        """Tell collision sensors which bodies their parent touches; the impulse is along the line between them."""
        for sensor in [a for a in self.actors.values() if a.sensor_type == SensorType.COLLISION]:
            parent = self.actors.get(sensor.parent)
            if parent is None or parent.model is None or not self.streams.has_readers(sensor.stream):
                continue
            for other in self.bodies():
                if other is parent or not overlap(parent, other):
                    continue
                impulse = [parent.pose[i] - other.pose[i] for i in range(3)]
                event = msgpack.packb([parent.on_wire(), other.on_wire(), impulse], use_bin_type=True)
                head = SENSOR_HEADER.pack(SensorType.COLLISION, self.frame, self.elapsed_s, *sensor.pose)
                self.streams.publish(sensor.stream, message(head, event), may_drop=False)
