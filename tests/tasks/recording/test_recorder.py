"""The recorder's warm-up, and a real server whose world does not do as the plan says."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from infra.carla_servers import CarlaServer
from tasks.planning.rows import read_plan
from tasks.recording.errors import RecordingError
from tasks.recording.recorder import WARM_UP_TICKS, Recorder
from tasks.recording.rig import Rig
from tests.conftest import SPEC


class Brightening:
    """A rig whose pictures have the given brightness, tick by tick, and whose cars touch the ground at first."""

    def __init__(self, levels):
        self.levels, self.ticks, self.collisions = list(levels), 0, [(0, "static.road")]

    def step(self, client, poses):
        level = self.levels[min(self.ticks, len(self.levels) - 1)]
        self.ticks += 1
        return [SimpleNamespace(bgra=np.full((2, 2, 4), level, np.uint8))] * 8, 0.0


@pytest.mark.parametrize(
    ("levels", "ticks"), [((50,), 3), ((10, 40, 70, 90, 90), 6), ((10, 10, 40, 40, 40), 5), ((10, 40, 40, 41, 41), 6)]
)
def test_warm_up_ends_after_two_ticks_without_a_change_and_forgets_contacts(levels, ticks):
    rig = Brightening(levels)
    Recorder(None, None, rig).warm_up(SimpleNamespace(poses=[None]))
    assert (rig.ticks, rig.collisions) == (ticks, [])


def test_a_brightness_that_never_settles_is_refused():
    rig = Brightening([10, 200] * WARM_UP_TICKS)
    with pytest.raises(RecordingError, match=f"the brightness did not settle in {WARM_UP_TICKS} ticks"):
        Recorder(None, None, rig).warm_up(SimpleNamespace(poses=[None]))


def test_a_clock_of_another_step_leaves_nothing(tiny, tmp_path):
    planned = read_plan(tiny.folder / "plan.parquet")[0]
    with CarlaServer(SPEC, tmp_path / "logs", "server0") as server:
        server.client.set_timeout(60.0)
        world = server.client.load_world(planned.town)
        settings = world.get_settings()
        settings.synchronous_mode, settings.fixed_delta_seconds = True, planned.fixed_delta_s / 2
        world.apply_settings(settings)
        rig = Rig(world, planned.view_width, planned.view_height, ground_truth=False)
        recording = dataclasses.replace(planned, record_ground_truth=False)
        with pytest.raises(RecordingError, match="the simulator's clock did not run at the plan's step"):
            Recorder(world, server.client, rig).record(recording, tmp_path)
        rig.destroy()
    assert not list((tmp_path / "recordings").glob("[!.]*"))
