"""Motion of cars along their ways: slower in bends, timed to meet, and never touching."""

from __future__ import annotations

import numpy as np

from tasks.planning.roads import Way

HALF_LENGTH_M, HALF_WIDTH_M = 2.09, 0.99
"""Half the size of the agents' car, an Audi TT."""
MARGIN_M = 0.3
MAX_LATERAL_MPS2 = 2.5
MAX_BRAKE_MPS2 = 2.0
SMOOTH_M = 3.0


def smoothed_line(way: Way, lateral_m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return stations [N], points [N, 3] and yaws [N] (radians, unwrapped) of a way shifted sideways, every 0.5 m.

    Points are averaged over a few metres, so that the heading does not jump where lanes join at an angle.
    """
    stations = way.stations
    fine = np.arange(0.0, stations[-1], 0.5)
    x, y, z = (np.interp(fine, stations, way.points[:, k]) for k in range(3))
    width = int(SMOOTH_M / 0.5) | 1
    kernel = np.hanning(width + 2)[1:-1]
    kernel /= kernel.sum()
    x, y = (np.convolve(np.pad(v, width // 2, mode="reflect", reflect_type="odd"), kernel, "valid") for v in (x, y))
    yaw = np.unwrap(np.arctan2(np.gradient(y), np.gradient(x)))
    yaw = np.convolve(np.pad(yaw, width // 2, mode="edge"), kernel, "valid")
    points = np.stack([x - lateral_m * np.sin(yaw), y + lateral_m * np.cos(yaw), z], 1)
    return fine, points, yaw


def speed_profile(stations: np.ndarray, yaw: np.ndarray, cruise_mps: float) -> np.ndarray:
    """Return the speed [N] at each station: cruising, slower in bends, with gentle braking and acceleration."""
    curvature = np.abs(np.gradient(yaw, stations))
    limit = np.minimum(cruise_mps, np.sqrt(MAX_LATERAL_MPS2 / np.maximum(curvature, 1e-6)))
    step = stations[1] - stations[0]
    for order in (range(1, len(limit)), range(len(limit) - 2, -1, -1)):
        for i in order:
            before = i - 1 if order.step > 0 else i + 1
            limit[i] = min(limit[i], np.sqrt(limit[before] ** 2 + 2 * MAX_BRAKE_MPS2 * step))
    return limit


def drive(
    way: Way, times_s: np.ndarray, *, meet_s: float, cruise_mps: float, lateral_m: float, ahead_m: float = 0.0
) -> np.ndarray | None:
    """Return poses [T, 6] (x, y, z, pitch, yaw, roll) of a car that is `ahead_m` past its anchor at `meet_s`.

    None when the way is too short for these times. Heights are the lane's; pitch and roll are 0.
    """
    stations, points, yaw = smoothed_line(way, lateral_m)
    speed = speed_profile(stations, yaw, cruise_mps)
    clock = np.concatenate([[0.0], np.cumsum(np.diff(stations) * 2 / (speed[1:] + speed[:-1]))])
    at = times_s - meet_s + np.interp(way.anchor_m + ahead_m, stations, clock)
    if at[0] < 0 or at[-1] > clock[-1]:
        return None
    s = np.interp(at, clock, stations)
    poses = np.zeros((len(times_s), 6))
    for axis in range(3):
        poses[:, axis] = np.interp(s, stations, points[:, axis])
    poses[:, 4] = (np.degrees(np.interp(s, stations, yaw)) + 180) % 360 - 180
    return poses


def separation_m(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return [T], how far apart two cars' boxes are along their best separating axis; negative where they overlap.

    `first`, `second`: poses [T, 6]. Exact as a test of overlap, and a lower bound on the distance.
    """
    yaws = np.radians(np.stack([first[:, 4], second[:, 4]], 1))
    forward = np.stack([np.cos(yaws), np.sin(yaws)], -1)
    left = np.stack([-np.sin(yaws), np.cos(yaws)], -1)
    between = second[:, :2] - first[:, :2]
    best = np.full(len(first), -np.inf)
    for axis in (forward[:, 0], left[:, 0], forward[:, 1], left[:, 1]):
        reach = sum(
            HALF_LENGTH_M * np.abs((forward[:, car] * axis).sum(-1))
            + HALF_WIDTH_M * np.abs((left[:, car] * axis).sum(-1))
            for car in (0, 1)
        )
        best = np.maximum(best, np.abs((between * axis).sum(-1)) - reach)
    return best


def closest_approach(poses: np.ndarray) -> tuple[int, float]:
    """Return the tick and the distance in metres of the cars' closest approach; poses [T, 2, 6]."""
    distance = np.linalg.norm(poses[:, 0, :2] - poses[:, 1, :2], axis=-1)
    return int(np.argmin(distance)), float(distance.min())
