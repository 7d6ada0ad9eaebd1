"""The world of one server: the town, its actors, time, and what every tick sends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

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
from infra.minicarla.scenery import Body, Camera, Pose, Town, Weather
from infra.minicarla.world import blueprints
from infra.minicarla.world.actors import Actor, overlap
from infra.minicarla.world.transforms import compose

log = logging.getLogger(__name__)

DEFAULT_STEP_S = 0.05
MAX_IMAGE_SIDE = 4096


class Renders(Protocol):
    """What the world asks of a renderer."""

    def render(self, cameras: Sequence[Camera], bodies: Sequence[Body], weather: Weather) -> list[np.ndarray]:
        """Return one uint8 [height, width, 4] BGRA array a camera."""
        ...


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
        due = [a for a in self.actors.values() if a.blueprint in blueprints.CAMERAS and self.is_due(a)]
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
