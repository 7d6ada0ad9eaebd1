"""Binary layouts of CARLA 0.9.16: stream tokens, sensor messages, the world's state. Little-endian, packed."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

VERSION = "0.9.16"
WORLD_STREAM = 1
"""Stream id of the world's state; it survives loading another town."""

SENSOR_HEADER = struct.Struct("<QQd6f")  # sensor type, frame, time s, x y z pitch yaw roll
IMAGE_HEADER = struct.Struct("<IIf")  # width, height, field of view
EPISODE_HEADER = struct.Struct("<Qdf3iI")  # episode, platform time, delta s, map origin, state bits
ACTOR_STATE = struct.Struct("<IB6f3f3f3f54s")  # id, state, transform, velocity, angular velocity, acceleration, union
VEHICLE_STATE = struct.Struct("<fff???ifB?IB")  # throttle steer brake, flags, gear, speed limit, light, ...
TOKEN = struct.Struct("<IHBB16s")  # stream, port, 1 = tcp, 0 = the host that was dialled
SIZE = struct.Struct("<I")
MAP_CHANGED = 1
ACTIVE = 1


class SensorType(IntEnum):
    """Index in the sensor registry of 0.9.16; another release numbers them differently."""

    COLLISION = 0
    DEPTH = 1
    RGB = 13
    SEMANTIC = 14
    INSTANCE = 15
    WORLD = 17


def token(stream: int, port: int) -> bytes:
    """Return the 24 bytes that tell a client where to read `stream`."""
    return TOKEN.pack(stream, port, 1, 0, bytes(16))


def message(*parts: bytes | memoryview) -> list[bytes | memoryview]:
    """Prefix the parts with their total size, as every stream message is."""
    return [SIZE.pack(sum(len(part) for part in parts)), *parts]


def image_message(
    kind: SensorType,
    frame: int,
    time_s: float,
    pose: Iterable[float],
    width: int,
    height: int,
    fov: float,
    bgra: memoryview,
) -> list[bytes | memoryview]:
    """Return a camera's message; `bgra` holds width * height * 4 bytes, rows from the top."""
    head = SENSOR_HEADER.pack(kind, frame, time_s, *pose) + IMAGE_HEADER.pack(width, height, fov)
    return message(head, bgra)


def actor_state(
    actor: int, pose: Iterable[float], velocity: Iterable[float], angular: Iterable[float], vehicle: tuple | None
) -> bytes:
    """Return one actor's 119 bytes of the world's state."""
    union = VEHICLE_STATE.pack(*vehicle, 30.0, 4, False, 0, 0) if vehicle is not None else b""
    return ACTOR_STATE.pack(actor, ACTIVE, *pose, *velocity, *angular, 0.0, 0.0, 0.0, union)


def world_message(
    episode: int,
    frame: int,
    time_s: float,
    platform_s: float,
    delta_s: float,
    map_changed: bool,
    actors: Iterable[bytes],
) -> list[bytes | memoryview]:
    """Return the state of all actors at one frame."""
    head = SENSOR_HEADER.pack(SensorType.WORLD, frame, time_s, 0, 0, 0, 0, 0, 0)
    head += EPISODE_HEADER.pack(episode, platform_s, delta_s, 0, 0, 0, MAP_CHANGED if map_changed else 0)
    return message(head + b"".join(actors))
