"""`apply_batch`: CARLA's commands, numbered as on the wire."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from infra.minicarla.protocol.arguments import (
    ActorDescription,
    AngularVelocity,
    Flag,
    Id,
    LightFlags,
    Location,
    Parser,
    Transform,
    VehicleControl,
    Velocity,
    anything,
    list_of,
    optional,
    parser,
    struct_of,
    whole_number,
)
from infra.minicarla.protocol.errors import RpcError
from infra.minicarla.world import effects
from infra.minicarla.world.actors import Actor
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
    CONSOLE_COMMAND = 20
    SET_TRAFFIC_LIGHT_STATE = 21


MAX_COMMANDS = 10_000
MAX_CHAINED = 100

_ACTOR = parser(Id)
_COMMAND = struct_of(variant=struct_of(which=whole_number(0, len(Command) - 1), payload=list_of(anything, 20)))
_SPAWN = struct_of(
    description=parser(ActorDescription),
    transform=parser(Transform),
    parent=optional(_ACTOR),
    attachment=anything,  # the Python client sends uninitialised memory
    socket=anything,
    do_after=list_of(anything, MAX_CHAINED),
)
_ANY_VECTOR = parser(Location)


def no_effect(world: World, actor: Actor, value: Any) -> None:
    raise RpcError(f"this command has no effect on a {actor.blueprint}: {effects.MOVE_IT}")


def on_actor(effect: Callable[[Actor, Any], None]) -> Callable[[World, Actor, Any], None]:
    """Adapt an effect that needs only its actor to be called with the world too."""
    return lambda world, actor, value: effect(actor, value)


EFFECTS: dict[Command, tuple[Parser, Callable[[World, Actor, Any], None]]] = {
    Command.APPLY_TRANSFORM: (parser(Transform), World.teleport),
    Command.APPLY_LOCATION: (parser(Location), World.move_to),
    Command.APPLY_VEHICLE_CONTROL: (parser(VehicleControl), on_actor(effects.apply_control)),
    Command.APPLY_TARGET_VELOCITY: (parser(Velocity), on_actor(effects.set_velocity)),
    Command.APPLY_TARGET_ANGULAR_VELOCITY: (parser(AngularVelocity), on_actor(effects.set_angular_velocity)),
    Command.APPLY_IMPULSE: (_ANY_VECTOR, on_actor(effects.push)),
    Command.APPLY_FORCE: (_ANY_VECTOR, on_actor(effects.push)),
    Command.APPLY_ANGULAR_IMPULSE: (_ANY_VECTOR, on_actor(effects.push)),
    Command.APPLY_TORQUE: (_ANY_VECTOR, on_actor(effects.push)),
    Command.SET_SIMULATE_PHYSICS: (parser(Flag), on_actor(effects.set_physics)),
    Command.SET_ENABLE_GRAVITY: (parser(Flag), on_actor(effects.set_gravity)),
    Command.SET_AUTOPILOT: (parser(Flag), on_actor(effects.set_autopilot)),
    Command.SET_VEHICLE_LIGHT_STATE: (parser(LightFlags), on_actor(effects.set_lights)),
}
"""The parser of a command's one value, and its effect on the actor. All other commands but spawn and destroy are
refused."""


def apply_batch(world: World, commands: list) -> list:
    """Run the commands in order; answer [[1, actor id]] or [[0, [reason]]] each.

    A command is done completely or not at all, and an error does not stop the batch.
    """
    answers: list = []
    for command in commands:
        try:
            answers.append([[1, run(world, command)]])
        except RpcError as error:
            answers.append([[0, [str(error)]]])
    return answers


def run(world: World, command: Any, spawned: Actor | None = None) -> int:
    """Run one command, on the actor that was just spawned if it is chained; return the id of its actor."""
    ((which, payload),) = _COMMAND(command, "command")
    kind = Command(which)
    what = kind.name.lower()
    if kind is Command.SPAWN_ACTOR:
        if spawned is not None:
            raise RpcError("a spawn cannot be chained to another: spawn the parent first")
        return spawn(world, _SPAWN(payload, what))
    parse, effect = EFFECTS.get(kind, (anything, no_effect))
    if kind is Command.DESTROY_ACTOR:
        (actor_id,) = struct_of(actor=_ACTOR)(payload, what)
    elif kind in EFFECTS:
        actor_id, value = struct_of(actor=_ACTOR, value=parse)(payload, what)
    else:
        actor_id, value = _ACTOR(payload[0] if payload else None, f"{what} actor"), None
    actor = world.find(spawned.id if spawned else actor_id)
    if kind is Command.DESTROY_ACTOR:
        world.destroy(actor.id)
    else:
        effect(world, actor, value)
    return actor.id


def spawn(world: World, payload: list) -> int:
    """Spawn, then run the commands chained with `.then` on the new actor.

    CARLA silently leaves an actor whose chained commands failed. Here it is removed again and the answer to the spawn
    is the reason, so that no half-made actor stays.
    """
    description, transform, parent, _, _, chained = payload
    actor = world.spawn(description, transform, None if parent is None else world.find(parent))
    try:
        for command in chained:
            run(world, command, actor)
    except RpcError as error:
        if actor.id in world.actors:
            world.destroy(actor.id)
        raise RpcError(f"{actor.blueprint} was not spawned, because a command chained to it failed: {error}") from error
    return actor.id
