"""`apply_batch`: CARLA's commands, numbered as on the wire."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

from infra.minicarla.protocol.rpc import RpcError
from infra.minicarla.world.episode import World


class Command(IntEnum):
    SPAWN_ACTOR = 0
    DESTROY_ACTOR = 1
    APPLY_VEHICLE_CONTROL = 2
    APPLY_VEHICLE_ACKERMANN_CONTROL = 3
    APPLY_WALKER_CONTROL = 4
    APPLY_VEHICLE_PHYSICS_CONTROL = 5
    APPLY_TRANSFORM = 6
    APPLY_WALKER_STATE = 7
    APPLY_TARGET_VELOCITY = 8
    APPLY_TARGET_ANGULAR_VELOCITY = 9
    APPLY_IMPULSE = 10
    APPLY_FORCE = 11
    APPLY_ANGULAR_IMPULSE = 12
    APPLY_TORQUE = 13
    SET_SIMULATE_PHYSICS = 14
    SET_ENABLE_GRAVITY = 15
    SET_AUTOPILOT = 16
    SHOW_DEBUG_TELEMETRY = 17
    SET_VEHICLE_LIGHT_STATE = 18
    APPLY_LOCATION = 19


def pose_of(transform: list) -> tuple[float, float, float, float, float, float]:
    """Return x, y, z, pitch, yaw, roll of a Transform on the wire; RpcError if one is not a finite number."""
    x, y, z, pitch, yaw, roll = (float(value) for triple in transform for value in triple)
    if not all(map(math.isfinite, (x, y, z, pitch, yaw, roll))):
        raise RpcError(f"transform {transform} holds a number that is not finite: give metres and degrees")
    return x, y, z, pitch, yaw, roll


def apply_batch(world: World, commands: list) -> list:
    """Run the commands in order; answer [[1, actor id]] or [[0, [reason]]] each. An error does not stop the batch."""
    answers: list = []
    for (command,) in commands:
        try:
            answers.append([[1, run(world, *command)]])
        except RpcError as error:
            answers.append([[0, [str(error)]]])
        except (TypeError, ValueError, IndexError) as error:
            answers.append([[0, [f"malformed command {command!r:.80}: {error}"]]])
    return answers


def run(world: World, which: int, payload: list) -> int:
    """Run one command; return the id of its actor. Commands about forces and engines are taken and do nothing."""
    command = Command(which)
    if command is Command.SPAWN_ACTOR:
        return spawn(world, payload)
    actor = world.find(payload[0])
    value: Any = payload[1] if len(payload) > 1 else None
    if command is Command.DESTROY_ACTOR:
        world.destroy(actor.id)
    elif command in (Command.APPLY_TRANSFORM, Command.APPLY_WALKER_STATE):
        world.place(actor, pose_of(value))
    elif command is Command.APPLY_LOCATION:
        world.place(actor, (*map(float, value), *actor.pose[3:]))  # type: ignore[arg-type]
    elif command is Command.APPLY_VEHICLE_CONTROL:
        actor.control = tuple(value)
    elif command is Command.APPLY_TARGET_VELOCITY:
        actor.velocity = tuple(value)
    elif command is Command.APPLY_TARGET_ANGULAR_VELOCITY:
        actor.angular_velocity = tuple(value)
    elif command is Command.SET_SIMULATE_PHYSICS:
        actor.physics = bool(value)
    elif command is Command.SET_VEHICLE_LIGHT_STATE:
        actor.light_state = int(value)
    return actor.id


def spawn(world: World, payload: list) -> int:
    """Spawn, then run the commands chained with `.then`, whose actor id 0 means the new actor.

    The attachment type is ignored: the Python client sends uninitialised memory in its place.
    """
    description, transform, parent, _, _, chained = payload
    actor = world.spawn(description, pose_of(transform), parent[1] if parent[0] else 0)
    for ((which, arguments),) in chained:
        run(world, which, [arguments[0] or actor.id, *arguments[1:]])
    return actor.id
