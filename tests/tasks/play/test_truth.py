"""The truth beside it: what is compared, and that it takes the newest frame, waits for nobody and may fail."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from infra.carla_servers import NotReady
from tasks.play import truth as truths
from tasks.play.truth import Truth, bearing_error_deg, psnr_db
from tests.tasks.play.conftest import OTHER_SCENE, until


def pose(x, y=0.0, yaw=0.0):
    return np.array([x, y, 0.0, 0.0, yaw, 0.0])


def road(car_column: int | None, width: int = 48, height: int = 32) -> np.ndarray:
    """A grey mosaic whose front view shows a red car around a column."""
    mosaic = np.full((2 * height, 2 * width, 3), 110, np.uint8)
    if car_column is not None:
        mosaic[17:23, car_column - 4 : car_column + 4] = (180, 20, 24)
    return mosaic


def test_psnr_is_the_mean_over_views():
    truth = road(None)
    generated = truth.copy()
    assert psnr_db(generated, truth) == 60
    generated[:32, :48] += 10
    assert psnr_db(generated, truth) == pytest.approx((3 * 60 + 10 * np.log10(255**2 / 100)) / 4)


def test_the_bearing_error_is_the_angle_between_both_cars():
    here, ahead = pose(0), pose(10)
    assert bearing_error_deg(road(24), road(24), here, ahead) == (True, 0.0)
    visible, error = bearing_error_deg(road(34), road(24), here, ahead)
    assert visible
    assert error == pytest.approx(np.degrees(np.arctan2(10, 24)), abs=0.5)


def test_a_car_that_is_not_generated_is_not_found_and_one_out_of_sight_not_looked_for():
    assert bearing_error_deg(road(None), road(24), pose(0), pose(10)) == (True, None)
    assert bearing_error_deg(road(24), road(None), pose(0), pose(10)) == (False, None)
    behind = pose(-40, 30)
    assert bearing_error_deg(road(24), road(24), pose(0), behind) == (False, None)  # red, but not where the car is


class PaintedSimulator:
    """Renders grey, one picture at a time that the test lets through."""

    def __init__(self, *given, **options) -> None:
        self.opened: list[str] = []
        self.rendered: list[np.ndarray] = []
        self.stopped = False
        self.go = threading.Event()
        made.append(self)

    def open(self, scene) -> None:
        self.opened.append(scene.name)

    def render(self, poses):
        self.go.wait()
        self.rendered.append(poses)
        return np.stack([road(24)] * 2)

    def stop(self) -> None:
        self.stopped = True


made: list[PaintedSimulator] = []


@pytest.fixture
def truth(session, tmp_path, monkeypatch):
    made.clear()
    monkeypatch.setattr(truths, "Simulator", PaintedSimulator)
    started = Truth(session, tmp_path / "logs")
    yield started
    for simulator in made:
        simulator.go.set()
    started.end()
    assert not started.thread.is_alive()
    assert all(simulator.stopped for simulator in made)


def test_it_takes_the_newest_frame_and_leaves_out_those_between(session, truth):
    truth.switch(True)
    until(lambda: made)
    until(lambda: session.shown() and session.shown().number > 6)  # the loop goes on while one is rendered
    shown = session.shown().number
    made[0].go.set()
    until(lambda: truth.newest is not None and truth.newest.frame.number >= shown)
    assert len(made[0].rendered) <= 4
    assert truth.state == "on"
    header, _ = truth.newest.message.split(b"\n", 1)
    assert set(json.loads(header)["cars"][0]) == {"psnr_db", "other_visible", "other_bearing_deg"}


def test_it_follows_to_another_scene_and_can_be_switched_off(session, truth):
    truth.switch(True)
    until(lambda: made)
    made[0].go.set()
    until(lambda: truth.newest is not None)
    session.choose(OTHER_SCENE)
    until(lambda: made[0].opened[-1] == OTHER_SCENE)
    truth.switch(False)
    until(lambda: truth.state == "off" and truth.newest is None)
    truth.switch(True)
    until(lambda: truth.newest is not None)
    assert len(made) == 1


def test_a_simulator_that_fails_is_one_sentence_and_may_be_tried_again(session, truth, monkeypatch):
    def fail(*given):
        raise NotReady("it wrote nothing")

    monkeypatch.setattr(truths, "Simulator", fail)
    truth.switch(True)
    until(lambda: truth.state.startswith("The simulator failed: it wrote nothing. "))
    monkeypatch.setattr(truths, "Simulator", PaintedSimulator)
    truth.switch(True)
    until(lambda: made)
    made[0].go.set()
    until(lambda: truth.state == "on")
