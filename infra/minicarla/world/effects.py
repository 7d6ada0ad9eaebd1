"""The effects of calls on actors. Calls that a kinematic world cannot fulfil are refused, never ignored silently.

Actors have no engine, no gravity and no forces: they stand where they are put, or move at their target velocity.
docs/EMBEDDED_SERVER.md lists every call. A request that changes nothing (autopilot off, brake on a standing car) is
accepted.
"""

from __future__ import annotations

from infra.minicarla.protocol.errors import RpcError
from infra.minicarla.world.actors import Actor, Vector

MOVE_IT = "vehicles of the embedded CARLA are kinematic: move them with set_transform or set_target_velocity"


def vehicle(actor: Actor) -> Actor:
    """Return the actor if it is a vehicle; RpcError otherwise."""
    if not actor.is_vehicle:
        raise RpcError(f"actor {actor.id} is a {actor.blueprint}: give the id of a vehicle")
    return actor


def set_physics(actor: Actor, enabled: bool) -> None:
    """With physics an actor moves at its target velocity; without, it stays where it is put."""
    actor.physics = enabled


def set_velocity(actor: Actor, velocity: Vector) -> None:
    if actor.parent and any(velocity):
        raise RpcError(f"actor {actor.id} is attached to {actor.parent}: give a velocity to that one")
    actor.velocity = velocity


def set_angular_velocity(actor: Actor, velocity: Vector) -> None:
    if any(velocity):
        raise RpcError("actors of the embedded CARLA do not turn by themselves: turn them with set_transform")


def apply_control(actor: Actor, control: list) -> None:
    """Store a vehicle's control for `get_control`. RpcError for one that would move the car."""
    throttle, steer = control[:2]
    if throttle or steer or any(vehicle(actor).velocity):
        raise RpcError(f"throttle {throttle:g}, steer {steer:g} would have no effect: {MOVE_IT}")
    actor.control = tuple(control)


def set_autopilot(actor: Actor, enabled: bool) -> None:
    vehicle(actor)
    if enabled:
        raise RpcError(f"there is no autopilot: {MOVE_IT}")


def set_gravity(actor: Actor, enabled: bool) -> None:
    if enabled:
        raise RpcError("there is no gravity in the embedded CARLA: put actors on the ground with set_transform")


def set_collisions(actor: Actor, enabled: bool) -> None:
    if not enabled:
        raise RpcError("collisions of the embedded CARLA are always on: a sensor reports every overlap of two bodies")


def set_lights(actor: Actor, flags: int) -> None:
    vehicle(actor)
    if flags:
        raise RpcError(f"vehicles of the embedded CARLA have no lamps: light state {flags} would not be seen")


def push(actor: Actor, amount: Vector) -> None:
    """Refuse impulses, forces and torques."""
    raise RpcError(f"impulses, forces and torques have no effect: {MOVE_IT}")
