"""How the two cars move from one frame to the next: by their drivers' keys, or along their planned trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.bicycle import ACCELERATION_MPS2, MAX_STEERING_DEG, WHEELBASE_M, Bicycle
from tasks.planning.motion import separation_m
from tasks.play.scenes import FRAME_S

ROLLING_MPS2 = 0.4
"""How much a car slows down without throttle."""
STEERING_PER_FRAME = 0.4
"""How far the wheel turns in a frame, of 1 from the middle to either end."""
TOUCHING_M = 0.05
"""Cars that would come nearer to each other than this do not move."""
LOOK_AHEAD_M, LOOK_AHEAD_S = 4.0, 0.8
"""A car that returns to its trajectory steers for the point that is so far ahead: the first plus speed times the
second (pure pursuit, Coulter 1992)."""
LEAST_FOLLOWING_MPS, END_M = 2.0, 1.5
"""Least speed of a car on its way back, until it is so near to the trajectory's end."""


@dataclass(frozen=True)
class Control:
    """What a driver wants."""

    throttle: float = 0.0
    """-1 (brake) .. 1"""
    steering: float = 0.0
    """-1 (left) .. 1 (right)"""


@dataclass(frozen=True)
class CarState:
    """A car at one frame."""

    pose: np.ndarray
    """[6] x, y, z, pitch, yaw, roll in CARLA's axes, metres and degrees"""
    speed_mps: float
    steering: float = 0.0
    """Of the wheel, -1 .. 1"""
    planned_frame: int | None = None
    """The frame of its planned trajectory at which it is; None once it was driven"""


def planned_speeds(planned: np.ndarray) -> np.ndarray:
    """Return the speed [T] in m/s at each frame of a planned trajectory [T, 6], at whose end the car stands."""
    steps = np.linalg.norm(np.diff(planned[:, :2], axis=0), axis=1) / FRAME_S
    return np.append(steps, 0.0)


def at_start(planned: np.ndarray) -> CarState:
    """Return a car at the start of its planned trajectory [T, 6]."""
    return CarState(planned[0].copy(), float(planned_speeds(planned)[0]), planned_frame=0)


def driven(state: CarState, control: Control) -> CarState:
    """Return a car one frame later, driven as a kinematic bicycle within the plan's limits (model/bicycle.py)."""
    turned = np.clip(control.steering, state.steering - STEERING_PER_FRAME, state.steering + STEERING_PER_FRAME)
    steering, throttle = float(np.clip(turned, -1, 1)), float(np.clip(control.throttle, -1, 1))
    throttle = throttle or -ROLLING_MPS2 / ACCELERATION_MPS2
    car = Bicycle.at(state.pose, state.speed_mps).step(throttle, steering, FRAME_S)
    return CarState(car.pose, car.speed_mps, steering)


def following(state: CarState, planned: np.ndarray) -> CarState:
    """Return a car one frame later that drives back to its planned trajectory [T, 6] and along it to its end."""
    apart = np.linalg.norm(planned[:, :2] - state.pose[:2], axis=1)
    nearest = int(np.argmin(apart))
    ahead = np.cumsum(
        np.linalg.norm(np.diff(planned[nearest:, :2], axis=0, prepend=planned[nearest : nearest + 1, :2]), axis=1)
    )
    if ahead[-1] < END_M:
        return driven(state, Control(throttle=-1))
    reach = LOOK_AHEAD_M + LOOK_AHEAD_S * state.speed_mps
    goal = planned[nearest + min(int(np.searchsorted(ahead, reach)), len(ahead) - 1), :2] - state.pose[:2]
    angle = np.arctan2(goal[1], goal[0]) - np.radians(state.pose[4])
    curvature = 2 * np.sin(angle) / max(float(np.linalg.norm(goal)), 1.0)
    if np.cos(angle) < 0:  # it lies behind: turn round
        curvature = np.sign(curvature or 1.0)
    steering = np.degrees(np.arctan(curvature * WHEELBASE_M)) / MAX_STEERING_DEG
    wanted = max(float(planned_speeds(planned)[nearest]), LEAST_FOLLOWING_MPS)
    throttle = np.clip((wanted - state.speed_mps) / (ACCELERATION_MPS2 * FRAME_S), -1, 1)
    return driven(state, Control(float(throttle), float(np.clip(steering, -1, 1))))


def moved(state: CarState, control: Control | None, planned: np.ndarray) -> CarState:
    """Return a car one frame later: driven where there is a control, else along its planned trajectory [T, 6]."""
    if control is not None:
        return driven(state, control)
    if state.planned_frame is None:
        return following(state, planned)
    frame = min(state.planned_frame + 1, len(planned) - 1)
    return CarState(planned[frame].copy(), float(planned_speeds(planned)[frame]), planned_frame=frame)


def touch(first: CarState, second: CarState) -> bool:
    return bool(separation_m(first.pose[None], second.pose[None])[0] < TOUCHING_M)


def moved_pair(
    states: Sequence[CarState], controls: Sequence[Control | None], trajectories: np.ndarray
) -> list[CarState]:
    """Return both cars one frame later. A car that would run into the other one stops; so does one that is run into.

    `trajectories`: the planned ones, [A, T, 6].
    """
    after = [moved(*car) for car in zip(states, controls, trajectories, strict=True)]
    stopped = [replace(state, speed_mps=0.0) for state in states]
    choices = [after, [stopped[0], after[1]], [after[0], stopped[1]]]
    if controls[0] is None:  # who drives by hand gives way to the plan
        choices[1], choices[2] = choices[2], choices[1]
    return next((choice for choice in choices if not touch(*choice)), stopped)
