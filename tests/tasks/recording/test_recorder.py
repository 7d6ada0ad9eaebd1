"""The recorder on a real server, whose world does not do as the plan says."""

from __future__ import annotations

import dataclasses

import pytest

from infra.carla_servers import CarlaServer
from tasks.planning.rows import read_plan
from tasks.recording.errors import RecordingError
from tasks.recording.recorder import Recorder
from tasks.recording.rig import Rig
from tests.conftest import SPEC


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
