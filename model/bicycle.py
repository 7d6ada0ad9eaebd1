"""A car that is steered: the kinematic bicycle, in CARLA's axes and within the limits of the planned recordings.

CARLA: x forward, y right, z up, metres; a positive yaw, in degrees, turns right. The pose is the car's, whose origin
moves along its heading, as in the plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

MAX_SPEED_MPS = 12.0
ACCELERATION_MPS2 = 2.0
"""Speeding up and braking; the plan's."""
MAX_LATERAL_MPS2 = 2.5
"""In bends; the plan's."""
WHEELBASE_M = 2.5
"""Of the agents' car, an Audi TT."""
MAX_STEERING_DEG = 35.0
"""Angle of the front wheels at full steering."""


class BicycleError(ValueError):
    """A control that no driver can give: which, with its value."""


def check_range(name: str, values: np.ndarray | float, low: float, high: float) -> None:
    """Raise BicycleError unless all values are finite and within [low, high]."""
    array = np.asarray(values, np.float64)
    wrong = array[~((array >= low) & (array <= high))]
    if wrong.size:
        raise BicycleError(f"{name} is {wrong.flat[0]:g}: give numbers from {low:g} to {high:g}.")


@dataclass(frozen=True)
class Bicycle:
    """A car at one moment; `step` gives the next."""

    x_m: float
    y_m: float
    yaw_deg: float
    speed_mps: float = 0.0
    z_m: float = 0.0

    @classmethod
    def at(cls, pose: Sequence[float] | np.ndarray, speed_mps: float = 0.0) -> Bicycle:
        """Return the car at a pose [6] (x, y, z, pitch, yaw, roll); pitch and roll are not kept."""
        x, y, z, _, yaw, _ = (float(value) for value in pose)
        return cls(x, y, yaw, speed_mps, z)

    @property
    def pose(self) -> np.ndarray:
        """The pose [6] (x, y, z, pitch, yaw, roll), with yaw in [-180, 180)."""
        return np.array([self.x_m, self.y_m, self.z_m, 0.0, (self.yaw_deg + 180.0) % 360.0 - 180.0, 0.0])

    def step(self, throttle: float, steering: float, dt: float) -> Bicycle:
        """Return the car after `dt` seconds.

        `throttle` in [-1, 1]: -1 brakes to a stand, 0 keeps the speed, 1 speeds up. `steering` in [-1, 1]: -1 is full
        left, 1 full right. BicycleError for controls outside of that, or not finite, and a `dt` outside [0, 10].
        """
        check_range("throttle", throttle, -1, 1)
        check_range("dt", dt, 0, 10)
        speed = min(max(self.speed_mps + throttle * ACCELERATION_MPS2 * dt, 0.0), MAX_SPEED_MPS)
        return replace(self.roll((self.speed_mps + speed) / 2, steering, dt), speed_mps=speed)

    def roll(self, speed_mps: float, steering: float, dt: float) -> Bicycle:
        """Return the car after `dt` seconds at one speed and steering, along a circle's arc.

        The arc is wider than steered where MAX_LATERAL_MPS2 asks for it. BicycleError for values out of range.
        """
        check_range("speed_mps", speed_mps, 0, MAX_SPEED_MPS)
        check_range("steering", steering, -1, 1)
        steered = math.tan(math.radians(abs(steering) * MAX_STEERING_DEG)) / WHEELBASE_M
        curvature = math.copysign(min(steered, MAX_LATERAL_MPS2 / max(speed_mps, 1e-3) ** 2), steering)
        distance = speed_mps * dt
        half_turn = curvature * distance / 2
        chord = distance * math.sin(half_turn) / half_turn if half_turn else distance
        heading = math.radians(self.yaw_deg) + half_turn
        return replace(
            self,
            x_m=self.x_m + chord * math.cos(heading),
            y_m=self.y_m + chord * math.sin(heading),
            yaw_deg=self.yaw_deg + math.degrees(2 * half_turn),
            speed_mps=speed_mps,
        )


def drive(
    start: Sequence[float] | np.ndarray, speed_mps: Sequence[float], steering: Sequence[float], fps: float
) -> np.ndarray:
    """Return the poses [T, 6] of a car that starts at pose `start` [6] with T speeds and steerings in [-1, 1].

    Between two frames it has the mean of their speeds and the earlier one's steering. BicycleError for values out of
    range, or counts that differ.
    """
    speeds, steerings = np.asarray(speed_mps, np.float64), np.asarray(steering, np.float64)
    if speeds.ndim != 1 or speeds.shape != steerings.shape or not speeds.size:
        raise BicycleError(
            f"there are {speeds.size} speeds and {steerings.size} steerings: give one of each per frame."
        )
    check_range("speed_mps", speeds, 0, MAX_SPEED_MPS)
    check_range("steering", steerings, -1, 1)
    check_range("fps", fps, 0.1, 1000)
    car = Bicycle.at(start)
    poses = [car.pose]
    for frame in range(len(speeds) - 1):
        car = car.roll((speeds[frame] + speeds[frame + 1]) / 2, steerings[frame], 1 / fps)
        poses.append(car.pose)
    return np.stack(poses)
