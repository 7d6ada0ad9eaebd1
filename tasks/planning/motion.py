"""Motion of cars along their ways: slower in bends, timed to meet, and never touching."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dgtsv

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
    half = width // 2
    for values in (x, y):  # mirrored at the ends, so that the line keeps its direction there
        before, after = 2 * values[0] - values[half:0:-1], 2 * values[-1] - values[-2 : -2 - half : -1]
        values[:] = np.convolve(np.concatenate([before, values, after]), kernel, "valid")
    yaw = np.unwrap(np.arctan2(np.gradient(y), np.gradient(x)))
    yaw = np.convolve(np.concatenate([[yaw[0]] * half, yaw, [yaw[-1]] * half]), kernel, "valid")
    points = np.stack([x - lateral_m * np.sin(yaw), y + lateral_m * np.cos(yaw), z], 1)
    return fine, points, yaw


def speed_profile(stations: np.ndarray, curvature: np.ndarray, cruise_mps: float, most_mps2: float) -> np.ndarray:
    """Return the speed [N] at each station: cruising, slower in bends, braking and accelerating by at most `most_mps2`.

    `curvature`: [N] per metre.
    """
    squared = np.minimum(cruise_mps**2, MAX_LATERAL_MPS2 / np.maximum(np.abs(curvature), 1e-6))
    ramp = 2 * most_mps2 * stations  # how the squared speed grows at that acceleration
    squared = np.minimum(squared, np.minimum.accumulate(squared - ramp) + ramp)
    backward = np.minimum.accumulate((squared + ramp)[::-1])[::-1] - ramp
    return np.sqrt(np.minimum(squared, backward))


def drive(
    way: Way,
    times_s: np.ndarray,
    *,
    meet_s: float,
    cruise_mps: float,
    lateral_m: float,
    ahead_m: float = 0.0,
    max_acceleration_mps2: float = 0.0,
) -> np.ndarray | None:
    """Return poses [T, 6] (x, y, z, pitch, yaw, roll) of a car that is `ahead_m` past its anchor at `meet_s`.

    None when the way is too short for these times. Heights are the lane's; pitch and roll are 0.
    `max_acceleration_mps2` holds at every tick. With 0 the speed changes in steps, every half metre: coarser, and the
    same as in all plans that do not ask for a limit.
    """
    stations, points, yaw = smoothed_line(way, lateral_m)
    line = np.column_stack([points, yaw])
    motion = even_motion if max_acceleration_mps2 else stepped_motion
    anchor_m = way.anchor_m + ahead_m
    driven = motion(stations, line, times_s - meet_s, anchor_m, cruise_mps, max_acceleration_mps2 or MAX_BRAKE_MPS2)
    if driven is None:
        return None
    poses = np.zeros((len(times_s), 6))
    poses[:, :3] = driven[:, :3]
    poses[:, 4] = (np.degrees(driven[:, 3]) + 180) % 360 - 180
    return poses


def stepped_motion(
    stations: np.ndarray, line: np.ndarray, times_s: np.ndarray, anchor_m: float, cruise_mps: float, most_mps2: float
) -> np.ndarray | None:
    """Return where on a line [N, 4] (x, y, z, yaw in radians) a car is, [T, 4], that is at `anchor_m` at time 0.

    None when the line is too short. The car goes from station to station at a constant speed.
    """
    speed = speed_profile(stations, np.gradient(line[:, 3], stations), cruise_mps, most_mps2)
    clock = clock_along(stations, speed)
    at = times_s + np.interp(anchor_m, stations, clock)
    if at[0] < 0 or at[-1] > clock[-1]:
        return None
    s = np.interp(at, clock, stations)
    return np.stack([np.interp(s, stations, values) for values in line.T], 1)


def even_motion(
    stations: np.ndarray, line: np.ndarray, times_s: np.ndarray, anchor_m: float, cruise_mps: float, most_mps2: float
) -> np.ndarray | None:
    """Return the same as `stepped_motion`, of a car on a smooth curve whose acceleration is constant between stations.

    Distances are those along the curve: where it was smoothed or shifted sideways, they are not the way's stations.
    """
    steps = np.linalg.norm(np.diff(line[:, :2], axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    second = second_derivatives(along, line)
    slope = np.diff(line, axis=0) / steps[:, None] - steps[:, None] * (2 * second[:-1] + second[1:]) / 6
    (dx, dy), (ddx, ddy) = slope[:, :2].T, second[:-1, :2].T
    curvature = np.append((dx * ddy - dy * ddx) / np.hypot(dx, dy) ** 3, 0.0)
    speed = speed_profile(along, curvature, cruise_mps, most_mps2)
    clock = clock_along(along, speed)
    at = times_s + np.interp(anchor_m, stations, clock)
    if at[0] < 0 or at[-1] > clock[-1]:
        return None
    k = np.clip(np.searchsorted(clock, at, side="right") - 1, 0, len(steps) - 1)
    since, acceleration = at - clock[k], (speed[k + 1] ** 2 - speed[k] ** 2) / (2 * steps[k])
    step = steps[k][:, None]
    share = (speed[k] * since + acceleration * since**2 / 2)[:, None] / step
    rest = 1 - share
    bend = (rest**3 - rest) * second[k] + (share**3 - share) * second[k + 1]
    return rest * line[k] + share * line[k + 1] + step**2 / 6 * bend


def second_derivatives(stations: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return [N, C], the second derivatives of the natural cubic spline through `values` [N, C] at `stations` [N].

    scipy's CubicSpline gives the same in seven times the time, which a plan of 20,000 recordings notices.
    """
    step = np.diff(stations)
    bends = np.diff(np.diff(values, axis=0) / step[:, None], axis=0)
    inner = step[1:-1]
    second = np.zeros_like(values)
    second[1:-1] = dgtsv(inner, 2 * (step[:-1] + step[1:]), inner, 6 * bends)[3]
    return second


def clock_along(stations: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Return [N], the time at which a car is at each station, from 0."""
    return np.concatenate([[0.0], np.cumsum(np.diff(stations) * 2 / (speed[1:] + speed[:-1]))])


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
