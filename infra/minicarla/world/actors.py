"""Actors: vehicles, props, sensors and the spectator, as the client sees them and as the renderer does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from infra.minicarla.protocol.wire import SensorType
from infra.minicarla.scenery import Body, Camera, Pose
from infra.minicarla.transforms import rotation
from infra.minicarla.world.blueprints import BODIES, CAMERAS, COLLISION

Vector = tuple[float, float, float]
STILL: Vector = (0.0, 0.0, 0.0)
NO_CONTROL = (0.0, 0.0, 0.0, False, False, False, 0)
"""throttle, steer, brake, hand brake, reverse, manual gear shift, gear"""


@dataclass(eq=False)
class Actor:
    """One actor. `pose` is in the world; `offset` is an attached actor's pose relative to its parent."""

    id: int
    blueprint: str
    uid: int
    attributes: dict[str, list]
    """Name -> [name, type, value], with the blueprint's defaults filled in."""
    pose: Pose
    parent: int = 0
    offset: Pose | None = None
    stream: int = 0
    """Stream of a sensor; 0 for everything else."""
    token: bytes = b""
    velocity: Vector = STILL
    angular_velocity: Vector = STILL
    physics: bool = True
    control: tuple = NO_CONTROL
    last_image_s: float = field(default=-math.inf)
    children: list[Actor] = field(default_factory=list, repr=False)
    """The actors that are attached to it."""

    def value(self, name: str) -> str:
        return self.attributes[name][2]

    @cached_property
    def model(self):
        """How a vehicle or prop looks (`BodyModel`), None for sensors and the spectator."""
        return BODIES.get(self.blueprint)

    @property
    def is_vehicle(self) -> bool:
        return self.blueprint.startswith("vehicle.")

    @cached_property
    def is_camera(self) -> bool:
        return self.blueprint in CAMERAS

    @cached_property
    def sensor_type(self) -> SensorType | None:
        if self.blueprint == COLLISION:
            return SensorType.COLLISION
        return CAMERAS[self.blueprint][0] if self.blueprint in CAMERAS else None

    @cached_property
    def period_s(self) -> float:
        """Least time between two images (`sensor_tick`), 0 for every tick."""
        return float(self.value("sensor_tick"))

    @cached_property
    def lens(self) -> tuple[int, int, float]:
        """Width, height in pixels and horizontal field of view in degrees."""
        return int(self.value("image_size_x")), int(self.value("image_size_y")), float(self.value("fov"))

    @cached_property
    def radius(self) -> float:
        """Radius of the circle around a body's box, seen from above."""
        return math.hypot(*self.model.half[:2])

    @cached_property
    def rgb(self) -> Vector:
        red, green, blue = (int(part) / 255 for part in self.value("color").split(","))
        return red, green, blue

    def camera(self) -> Camera:
        width, height, fov = self.lens
        return Camera(CAMERAS[self.blueprint][1], self.pose, width, height, fov)

    def body(self) -> Body:
        model = self.model
        return Body(model.shape, self.pose, model.half, self.rgb, model.label, self.id)

    def bounding_box(self) -> list:
        """Return CARLA's box in the actor's frame: centre, half sizes, rotation, actor id."""
        half = list(self.model.half) if self.model else [0.0, 0.0, 0.0]
        return [[0.0, 0.0, half[2]], half, [0.0, 0.0, 0.0], self.id]

    def on_wire(self) -> list:
        tags = bytes([self.model.label]) if self.model else b""
        description = [self.uid, self.blueprint, list(self.attributes.values())]
        return [self.id, self.parent, description, self.bounding_box(), tags, self.token]


def boxes_overlap(first: Actor, second: Actor) -> bool:
    """Tell whether the boxes of two bodies overlap: separating axes of the upright boxes, heights compared apart."""
    height, other = first.model.half[2], second.model.half[2]
    low, high = max(first.pose[2], second.pose[2]), min(first.pose[2] + 2 * height, second.pose[2] + 2 * other)
    gap = (second.pose[0] - first.pose[0], second.pose[1] - first.pose[1])
    if low >= high or math.hypot(*gap) > first.radius + second.radius:
        return False
    axes = [rotation(0.0, actor.pose[4], 0.0) for actor in (first, second)]
    for matrix in axes:
        for column in (0, 1):
            axis = (matrix[0][column], matrix[1][column])
            reach = sum(
                actor.model.half[k] * abs(axis[0] * m[0][k] + axis[1] * m[1][k])
                for actor, m in zip((first, second), axes, strict=True)
                for k in (0, 1)
            )
            if abs(gap[0] * axis[0] + gap[1] * axis[1]) >= reach:
                return False
    return True
