"""Cars keep within the plan's limits, return to their trajectories, and never touch."""

from __future__ import annotations

import numpy as np

from model.bicycle import MAX_LATERAL_MPS2, MAX_SPEED_MPS
from tasks.planning.motion import MAX_BRAKE_MPS2
from tasks.play.cars import CarState, Control, at_start, driven, moved, moved_pair, touch
from tasks.play.scenes import FRAME_S


def car(x=0.0, y=0.0, yaw=0.0, speed=0.0) -> CarState:
    return CarState(np.array([x, y, 0.0, 0.0, yaw, 0.0]), speed)


def drive(state: CarState, control: Control, frames: int) -> list[CarState]:
    states = [state]
    for _ in range(frames):
        states.append(driven(states[-1], control))
    return states


def test_a_driven_car_keeps_the_plans_limits():
    for control in (Control(1, 0), Control(1, 1), Control(-1, -1), Control(0.3, -0.7), Control(9, 9)):
        for start in (car(), car(speed=12.0)):
            states = drive(start, control, 120)
            speeds = np.array([state.speed_mps for state in states])
            assert speeds.min() >= 0
            assert speeds.max() <= MAX_SPEED_MPS
            assert np.abs(np.diff(speeds)).max() <= MAX_BRAKE_MPS2 * FRAME_S + 1e-9
            yaws = np.unwrap(np.radians([state.pose[4] for state in states]))
            means = (speeds[1:] + speeds[:-1]) / 2
            assert (np.abs(np.diff(yaws)) / FRAME_S * means).max() <= MAX_LATERAL_MPS2 + 1e-6


def test_keys_mean_what_they_say_in_carlas_axes():
    assert drive(car(), Control(1, 0), 20)[-1].pose[0] > 3
    assert drive(car(speed=5), Control(0, 1), 10)[-1].pose[4] > 5  # yaw grows to the right
    assert drive(car(speed=5), Control(0, -1), 10)[-1].pose[4] < -5
    assert drive(car(speed=5), Control(-1, 0), 40)[-1].speed_mps == 0


def test_an_untouched_car_follows_its_plan_exactly_and_stays_at_its_end(scenes):
    for scene in scenes.values():
        states = [at_start(planned) for planned in scene.trajectories]
        for frame in range(1, scene.trajectories.shape[1] + 5):
            states = moved_pair(states, [None, None], scene.trajectories)
            place = min(frame, scene.trajectories.shape[1] - 1)
            assert np.array_equal([state.pose for state in states], scene.trajectories[:, place])
        assert [state.speed_mps for state in states] == [0, 0]


def test_a_car_without_its_driver_returns_to_its_trajectory(scenes):
    planned = scenes["1-crossing"].trajectories[0]
    state = at_start(planned)
    for _ in range(15):
        state = moved(state, Control(0.5, 0.6), planned)
    away = np.linalg.norm(planned[:, :2] - state.pose[:2], axis=1).min()
    assert away > 0.5
    for _ in range(200):
        state = moved(state, None, planned)
    assert np.linalg.norm(planned[-1, :2] - state.pose[:2]) < 3
    assert state.speed_mps == 0


def test_cars_that_would_touch_stop(scenes):
    trajectories = np.stack([np.linspace([0, 0, 0, 0, 0, 0], [40, 0, 0, 0, 0, 0], 81)] * 2)
    trajectories[1, :, 0] = 20
    states = [at_start(planned) for planned in trajectories]
    for _ in range(100):
        states = moved_pair(states, [Control(1, 0), None], trajectories)
        assert not touch(*states)
    assert states[0].speed_mps == 0
    assert 12 < states[0].pose[0] < 16
