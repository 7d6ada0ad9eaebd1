"""The kinematic bicycle: circles are closed, limits hold, and what no driver can do is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model.bicycle import (
    MAX_LATERAL_MPS2,
    MAX_SPEED_MPS,
    MAX_STEERING_DEG,
    WHEELBASE_M,
    Bicycle,
    BicycleError,
    drive,
)


def test_it_drives_straight_along_its_heading_in_carlas_axes():
    car = Bicycle(1.0, 2.0, 90.0, speed_mps=4.0).step(0.0, 0.0, 0.5)
    np.testing.assert_allclose(car.pose, [1.0, 4.0, 0.0, 0.0, 90.0, 0.0], atol=1e-12)


def test_right_is_towards_y_and_a_larger_yaw():
    car = Bicycle(0.0, 0.0, 0.0, speed_mps=2.0).step(0.0, 0.5, 1.0)
    assert car.y_m > 0
    assert car.yaw_deg > 0
    left = Bicycle(0.0, 0.0, 0.0, speed_mps=2.0).step(0.0, -0.5, 1.0)
    assert (left.x_m, left.y_m, left.yaw_deg) == (car.x_m, -car.y_m, -car.yaw_deg)


def test_a_full_circle_ends_where_it_began_whatever_the_step():
    radius = WHEELBASE_M / math.tan(math.radians(MAX_STEERING_DEG))
    speed = 1.5
    assert speed**2 / radius < MAX_LATERAL_MPS2
    for steps in (7, 100):
        car = Bicycle(3.0, -4.0, 30.0, speed_mps=speed)
        far = 0.0
        for _ in range(steps):
            car = car.step(0.0, 1.0, 2 * math.pi * radius / speed / steps)
            far = max(far, math.hypot(car.x_m - 3.0, car.y_m + 4.0))
        np.testing.assert_allclose(car.pose, [3.0, -4.0, 0.0, 0.0, 30.0, 0.0], atol=1e-9)
        assert far == pytest.approx(2 * radius, rel=0.1)


def test_speed_stays_within_its_limits_and_never_turns_negative():
    car = Bicycle(0.0, 0.0, 0.0)
    for _ in range(100):
        car = car.step(1.0, 0.0, 0.1)
    assert car.speed_mps == MAX_SPEED_MPS
    car = car.step(-1.0, 0.0, 0.5)
    assert car.speed_mps == pytest.approx(MAX_SPEED_MPS - 1.0)
    for _ in range(100):
        car = car.step(-1.0, 0.0, 0.1)
    assert car.speed_mps == 0.0
    assert car.step(0.0, 1.0, 1.0) == car


@pytest.mark.parametrize("speed", [3.0, 7.0, 12.0])
def test_bends_are_no_tighter_than_the_lateral_acceleration_allows(speed):
    car = Bicycle(0.0, 0.0, 0.0, speed_mps=speed)
    turned = math.radians(car.step(0.0, 1.0, 0.1).yaw_deg)
    assert turned / 0.1 * speed == pytest.approx(MAX_LATERAL_MPS2)


def test_speeds_and_steerings_become_poses_from_a_start():
    poses = drive([10.0, 5.0, 0.2, 3.0, 180.0, 1.0], [2.0, 4.0, 4.0], [0.0, 0.0, 1.0], fps=10)
    np.testing.assert_allclose(poses[:, :3], [[10.0, 5.0, 0.2], [9.7, 5.0, 0.2], [9.3, 5.0, 0.2]], atol=1e-9)
    np.testing.assert_allclose(poses[:, 3:], [[0.0, -180.0, 0.0]] * 3)


@pytest.mark.parametrize(
    ("speeds", "steerings", "sentence"),
    [
        ([13.0], [0.0], "speed_mps is 13: give numbers from 0 to 12"),
        ([-1.0], [0.0], "speed_mps is -1"),
        ([1.0], [1.5], "steering is 1.5"),
        ([float("nan")], [0.0], "speed_mps is nan"),
        ([1.0, 1.0], [0.0], "2 speeds and 1 steerings"),
        ([], [], "0 speeds and 0 steerings"),
    ],
)
def test_what_no_driver_can_do_is_refused(speeds, steerings, sentence):
    with pytest.raises(BicycleError, match=sentence):
        drive([0.0] * 6, speeds, steerings, fps=10)
    with pytest.raises(BicycleError, match="throttle is 2"):
        Bicycle(0.0, 0.0, 0.0).step(2.0, 0.0, 0.1)
