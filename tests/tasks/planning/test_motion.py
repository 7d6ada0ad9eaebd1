"""Motion along a path: within its limits at every tick, whatever the road."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.planning.motion import MAX_LATERAL_MPS2, drive
from tasks.planning.roads import Way

TICK_S = 1 / 30


def way_of(pieces) -> Way:
    """A way of pieces (metres, curvature per metre, turn in degrees before it), one point per metre."""
    x, y, yaw = 0.0, 0.0, 0.0
    points = [(x, y, 0.0, 0.0)]
    for metres, curvature, turn_deg in pieces:
        yaw += np.radians(turn_deg)
        for _ in range(metres):
            yaw += curvature / 2
            x, y = x + np.cos(yaw), y + np.sin(yaw)
            yaw += curvature / 2
            points.append((x, y, 0.0, np.degrees(yaw)))
    return Way.along(np.array(points), len(points) // 2)


def accelerations(poses: np.ndarray, tick_s: float = TICK_S) -> tuple[np.ndarray, np.ndarray]:
    """Return, of poses [T, 6], the size of the acceleration along the path and across it, at every tick."""
    velocity = np.diff(poses[:, :2], axis=0) / tick_s
    change = np.diff(velocity, axis=0) / tick_s
    along = np.diff(np.linalg.norm(velocity, axis=1)) / tick_s
    ahead = velocity[1:] + velocity[:-1]
    ahead /= np.linalg.norm(ahead, axis=1)[:, None]
    return np.abs(along), np.abs(ahead[:, 0] * change[:, 1] - ahead[:, 1] * change[:, 0])


piece = st.tuples(st.integers(5, 40), st.floats(-0.15, 0.15), st.floats(-4, 4))


@given(st.lists(piece, min_size=4, max_size=8), st.floats(4, 14), st.floats(1, 4), st.floats(-0.3, 0.3))
@settings(max_examples=150, deadline=None)
def test_acceleration_stays_within_its_limits_at_every_tick(pieces, cruise, most, lateral):
    way = way_of([(30, 0.0, 0.0), *pieces, (30, 0.0, 0.0)])
    times = np.arange(120) * TICK_S
    poses = drive(way, times, meet_s=times[-1] / 2, cruise_mps=cruise, lateral_m=lateral, max_acceleration_mps2=most)
    assume(poses is not None)
    along, across = accelerations(poses)
    assert along.max() <= most * 1.02 + 0.02
    assert across.max() <= MAX_LATERAL_MPS2 * 1.05
    speed = np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1) / TICK_S
    assert speed.max() <= cruise * 1.001


@given(st.floats(4, 14), st.floats(-20, 20))
@settings(max_examples=30, deadline=None)
def test_the_car_is_at_its_meeting_place_in_time(cruise, ahead):
    way = way_of([(200, 0.0, 0.0)])
    times = np.arange(91) * TICK_S
    poses = drive(way, times, meet_s=1.5, cruise_mps=cruise, lateral_m=0.2, ahead_m=ahead, max_acceleration_mps2=2.0)
    assert poses is not None
    assert np.allclose(poses[45, :2], (way.anchor_m + ahead, 0.2), atol=1e-3)
