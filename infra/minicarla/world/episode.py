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

from infra.minicarla.protocol.arguments import MAX_M
from infra.minicarla.protocol.errors import RpcError
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
from infra.minicarla.transforms import compose
from infra.minicarla.world import blueprints
from infra.minicarla.world.actors import STILL, Actor, Vector, boxes_overlap
from infra.minicarla.world.scenes import Build, Scenes

Result = TypeVar("Result")

DEFAULT_STEP_S = 0.05
MAX_ACTORS = 2_000
MAX_DEPTH = 16
"""Longest chain of actors that are attached to each other."""
MAX_PIXELS = 2**27
"""Limit for all cameras together: eight of 4096x4096."""


class WorldSettings:
    """Episode settings, checked values in the order of CARLA's struct; the embedded server obeys the first three."""

    def __init__(self, values: list | None = None) -> None:
        self.values = values or [False, False, None, True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True]

    @property
    def wire(self) -> list:
        fixed = self.values[2]
        return [*self.values[:2], [False] if fixed is None else [True, fixed], *self.values[3:]]

    @property
    def synchronous(self) -> bool:
        return self.values[0]

    @property
    def rendering(self) -> bool:
        return not self.values[1]

    @property
    def step_s(self) -> float:
        """Simulated time per tick: fixed_delta_seconds, or 0.05 s."""
        fixed = self.values[2]
        return DEFAULT_STEP_S if fixed is None else fixed


class World:
    """State of the simulation. Everything is called with `lock` held; `tick` releases it while it waits for scenery."""

    def __init__(
        self, town: Town, build_renderer: Callable[[Town], Build], streams: StreamServer, lock: threading.RLock
    ) -> None:
        self.streams, self.scenes = streams, Scenes(build_renderer, lock)
        self.waiting_ticks: collections.deque[object] = collections.deque()
        self.definitions = blueprints.blueprint_library()
        self.settings = WorldSettings()
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
        """Replace everything by an empty `town`. Its scenery is built when the first camera is spawned.

        A tick that still waits for the old episode's scenery is refused.
        """
        for actor in list(self.actors.values()):
            self.streams.forget(actor.stream)
        self.actors.clear()
        self.town = town
        self.scenes.keep_only(town)
        self.episode += 1
        self.map_changed = True
        self.weather = Weather()
        if reset_settings:
            self.settings = WorldSettings()
        self.spectator = self.add_actor("spectator", 0, {}, (0.0, 0.0, 10.0, 0.0, 0.0, 0.0))

    def with_lock_released(self, job: Callable[[], Result]) -> Result:
        """Run a long job on a thread of its own and wait for it with the lock released. Raises what the job raises."""

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
        """Add an actor; RpcError, and nothing is changed, when there is no room for it."""
        actor = Actor(self.next_actor, blueprint, uid, attributes, pose)
        if parent is not None:
            actor.parent, actor.offset, actor.pose = parent.id, pose, compose(parent.pose, pose)
        reason = self.spawn_refusal(actor)
        if reason:
            raise RpcError(reason)
        if parent is not None:
            parent.children.append(actor)
        self.next_actor += 1
        if actor.sensor_type is not None:
            actor.stream = self.next_stream
            actor.token = token(actor.stream, self.streams.port)
            self.next_stream += 1
        self.actors[actor.id] = actor
        return actor

    def spawn(self, description: list, pose: Pose, parent: Actor | None = None) -> Actor:
        """Spawn an actor by its checked ActorDescription. RpcError for an unknown blueprint, a value that an attribute
        may not have, or a position that is taken."""
        _, name, given = description
        definition = self.definitions.get(name)
        if definition is None:
            raise RpcError(f"unable to spawn actor: there is no blueprint {name!r}")
        actor = self.add_actor(name, definition[0], blueprints.fill_attributes(definition, given), pose, parent)
        if actor.is_camera and self.settings.rendering:
            self.scenes.prepare(self.town)  # images can follow the sooner
        return actor

    def spawn_refusal(self, actor: Actor) -> str:
        """Return why a new actor cannot be added; empty where it can."""
        if len(self.actors) >= MAX_ACTORS:
            return f"there are {MAX_ACTORS} actors: destroy some before you spawn more"
        depth, above = 0, self.actors.get(actor.parent)
        while above is not None:
            depth, above = depth + 1, self.actors.get(above.parent)
        if depth > MAX_DEPTH:
            return f"actor {actor.parent} is attached to a chain of {depth} actors: attach to one nearer to its head"
        if actor.model is not None and any(boxes_overlap(actor, other) for other in self.bodies()):
            return "Spawn failed because of collision at spawn position"
        if actor.is_camera:
            pixels = sum(a.lens[0] * a.lens[1] for a in (actor, *self.actors.values()) if a.is_camera)
            if pixels > MAX_PIXELS:
                return f"all cameras together would have {pixels} pixels: {MAX_PIXELS} are possible"
        return ""

    def has_stream(self, stream: int) -> bool:
        return stream == WORLD_STREAM or any(actor.stream == stream for actor in self.actors.values() if stream)

    def destroy(self, actor_id: int) -> None:
        """Remove an actor and the sensors attached to it."""
        if actor_id not in self.actors or actor_id == self.spectator.id:
            raise RpcError("unable to destroy actor: not found")
        actor = self.actors[actor_id]
        for child in list(actor.children):
            self.destroy(child.id)
        if actor.parent:
            self.actors[actor.parent].children.remove(actor)
        self.streams.forget(self.actors.pop(actor_id).stream)

    def teleport(self, actor: Actor, pose: Pose) -> None:
        """Teleport an actor (an attached one: relative to its parent) with everything attached to it."""
        if actor.parent:
            actor.offset, actor.pose = pose, compose(self.actors[actor.parent].pose, pose)
        else:
            actor.pose = pose
        for child in actor.children:
            self.teleport(child, child.offset or child.pose)

    def move_to(self, actor: Actor, location: Vector) -> None:
        """Move an actor (an attached one: relative to its parent) without turning it."""
        self.teleport(actor, (*location, *(actor.offset or actor.pose)[3:]))

    def bodies(self) -> list[Actor]:
        return [actor for actor in self.actors.values() if actor.model is not None]

    def cameras(self) -> list[Actor]:
        return [actor for actor in self.actors.values() if actor.is_camera]

    # -- time -------------------------------------------------------------------------------------------------------

    def tick(self) -> int:
        """Advance one step; send the state first, then images and collisions; return the frame.

        The order matters: a client in `apply_batch_sync(.., True)` waits for the state with Python's lock held, which
        image callbacks would want. In synchronous mode a step whose images need scenery that is still being built waits
        for it first, with the lock released. In asynchronous mode steps go on, and images begin when they can.
        """
        if self.settings.synchronous:
            with self.tick_in_order() as wait:
                self.await_scenery(wait)
            if not self.settings.synchronous:  # another client changed it: the server steps by itself now
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
    def tick_in_order(self) -> Iterator[Callable[[], None]]:
        """Let waiting ticks proceed in the order in which they came. Yields the function that waits for a change.

        RpcError when another episode begins meanwhile.
        """
        episode, ticket = self.episode, object()

        def wait() -> None:
            self.scenes.changed.wait()
            if self.episode != episode:
                raise RpcError("another episode began before this tick: fetch the new world, then tick that")

        self.waiting_ticks.append(ticket)
        try:
            while self.waiting_ticks[0] is not ticket:
                wait()
            yield wait
        finally:
            self.waiting_ticks.remove(ticket)
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
        """Move actors that were given a target velocity; there is no other physics. They stop where maps end."""
        for actor in self.actors.values():
            if actor.physics and not actor.parent and any(actor.velocity):
                target = (
                    actor.pose[0] + actor.velocity[0] * step_s,
                    actor.pose[1] + actor.velocity[1] * step_s,
                    actor.pose[2] + actor.velocity[2] * step_s,
                )
                if max(map(abs, target)) > MAX_M:
                    actor.velocity = STILL
                else:
                    self.move_to(actor, target)

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
                if other is parent or not boxes_overlap(parent, other):
                    continue
                impulse = [parent.pose[i] - other.pose[i] for i in range(3)]
                event = msgpack.packb([parent.on_wire(), other.on_wire(), impulse], use_bin_type=True)
                head = SENSOR_HEADER.pack(SensorType.COLLISION, self.frame, self.elapsed_s, *sensor.pose)
                self.streams.publish(sensor.stream, message(head, event), may_drop=False)
