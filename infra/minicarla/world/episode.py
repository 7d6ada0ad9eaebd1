"""The world of one server: the town, its actors, time, and what every tick sends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

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
from infra.minicarla.scenery import Body, Camera, Pose, Town, Weather
from infra.minicarla.world import blueprints
from infra.minicarla.world.actors import STILL, Actor, Vector, overlap
from infra.minicarla.world.transforms import compose

log = logging.getLogger(__name__)

DEFAULT_STEP_S = 0.05
MAX_ACTORS = 2_000
MAX_DEPTH = 16
"""Of actors attached to actors attached to ..."""
MAX_PIXELS = 2**27
"""Of all cameras together: eight of 4096x4096."""


class Renders(Protocol):
    """What the world asks of a renderer."""

    def render(self, cameras: Sequence[Camera], bodies: Sequence[Body], weather: Weather) -> list[np.ndarray]:
        """Return one uint8 [height, width, 4] BGRA array a camera."""
        ...


class Settings:
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
        """Simulated time a tick: fixed_delta_seconds, or 0.05 s."""
        fixed = self.values[2]
        return DEFAULT_STEP_S if fixed is None else fixed


class World:
    """State of the simulation. Not thread-safe: the server calls it under one lock."""

    def __init__(
        self,
        load_town: Callable[[str], Town],
        build_renderer: Callable[[Town], Renders],
        streams: StreamServer,
        town: str,
    ) -> None:
        self.load_town, self.build_renderer, self.streams = load_town, build_renderer, streams
        self.definitions = blueprints.library()
        self.settings = Settings()
        self.weather = Weather()
        self.actors: dict[int, Actor] = {}
        self.episode = self.frame = 0
        self.elapsed_s = 0.0
        self.started = time.monotonic()
        self.next_actor, self.next_stream = 1, WORLD_STREAM + 1
        self.scene: tuple[Town, Renders] | None = None
        self.begin_episode(load_town(town))

    # -- episodes ---------------------------------------------------------------------------------------------------

    def begin_episode(self, town: Town, *, reset_settings: bool = True) -> None:
        """Put an empty `town` in place of everything. Its scenery is built when the first camera asks for it."""
        for actor in list(self.actors.values()):
            self.streams.forget(actor.stream)
        self.actors.clear()
        self.town = town
        self.episode += 1
        self.map_changed = True
        self.weather = Weather()
        if reset_settings:
            self.settings = Settings()
        self.spectator = self.add_actor("spectator", 0, {}, (0.0, 0.0, 10.0, 0.0, 0.0, 0.0))

    def renderer(self) -> Renders:
        """Return the renderer of the current town; the last one is kept over episodes."""
        if self.scene is None or self.scene[0] != self.town:
            start = time.monotonic()
            self.scene = None
            self.scene = (self.town, self.build_renderer(self.town))
            log.info("scenery of %s ready after %.1f s", self.town.name, time.monotonic() - start)
        return self.scene[1]

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
        reason = self.no_room(actor)
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
        """Spawn what a checked ActorDescription names; RpcError for an unknown blueprint, a value that an attribute
        may not have, or a taken place."""
        _, name, given = description
        definition = self.definitions.get(name)
        if definition is None:
            raise RpcError(f"unable to spawn actor: there is no blueprint {name!r}")
        return self.add_actor(name, definition[0], blueprints.completed(definition, given), pose, parent)

    def no_room(self, actor: Actor) -> str:
        """Return why a fresh actor cannot stay, or nothing."""
        if len(self.actors) >= MAX_ACTORS:
            return f"there are {MAX_ACTORS} actors: destroy some before you spawn more"
        depth, above = 0, self.actors.get(actor.parent)
        while above is not None:
            depth, above = depth + 1, self.actors.get(above.parent)
        if depth > MAX_DEPTH:
            return f"actor {actor.parent} is attached to a chain of {depth} actors: attach to one nearer to its head"
        if actor.model is not None and any(overlap(actor, other) for other in self.bodies()):
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

    def place(self, actor: Actor, pose: Pose) -> None:
        """Teleport an actor (an attached one: relative to its parent) with everything attached to it."""
        if actor.parent:
            actor.offset, actor.pose = pose, compose(self.actors[actor.parent].pose, pose)
        else:
            actor.pose = pose
        for child in actor.children:
            self.place(child, child.offset or child.pose)

    def move(self, actor: Actor, location: Vector) -> None:
        """Put an actor elsewhere (an attached one: relative to its parent) without turning it."""
        self.place(actor, (*location, *(actor.offset or actor.pose)[3:]))

    def bodies(self) -> list[Actor]:
        return [actor for actor in self.actors.values() if actor.model is not None]

    # -- time -------------------------------------------------------------------------------------------------------

    def tick(self) -> int:
        """Advance one step; send the state first, then images and collisions; return the frame.

        The order matters: a client in `apply_batch_sync(.., True)` waits for the state with Python's lock held, which
        image callbacks would want.
        """
        step = self.settings.step_s
        self.frame += 1
        self.elapsed_s += step
        self.coast(step)
        self.send_state(step)
        if self.settings.rendering:
            self.send_images()
        self.send_collisions()
        return self.frame

    def coast(self, step_s: float) -> None:
        """Move actors that were given a target velocity; there is no other physics. They stop where maps end."""
        for actor in self.actors.values():
            if actor.physics and not actor.parent and any(actor.velocity):
                there = (
                    actor.pose[0] + actor.velocity[0] * step_s,
                    actor.pose[1] + actor.velocity[1] * step_s,
                    actor.pose[2] + actor.velocity[2] * step_s,
                )
                if max(map(abs, there)) > MAX_M:
                    actor.velocity = STILL
                else:
                    self.move(actor, there)

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
        due = [a for a in self.actors.values() if a.is_camera and self.is_due(a)]
        if not due:
            return
        bodies = [actor.body() for actor in self.bodies()]
        images = self.renderer().render([actor.camera() for actor in due], bodies, self.weather)
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
