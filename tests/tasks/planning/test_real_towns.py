"""Plans of CARLA's own towns, where their road networks are at hand: they end, and keep what the preset says."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tasks.planning.check_opendrive import check_files
from tasks.planning.motion import MARGIN_M, MAX_LATERAL_MPS2, closest_approach, separation_m
from tasks.planning.plan import plan_data_set
from tasks.planning.preset import PlanPreset
from tasks.planning.summary import lacking
from tests.tasks.planning.test_motion import accelerations

SHARED_MAPS = Path(__file__).resolve().parents[4] / "shared" / "maps"
NOISE_MPS2 = 0.3
"""Of accelerations taken from float32 positions some hundred metres from the origin."""
CPU_LIMIT_S = 120
"""For a single town, on a busy machine; all twelve are to take as long on an idle one."""


@pytest.fixture(
    scope="module",
    params=[
        "Town01_2020",
        "Town10HD_2020",
        pytest.param("Town03_2019", marks=pytest.mark.slow),
        pytest.param("Town05_2019", marks=pytest.mark.slow),
        pytest.param("Town07_2020", marks=pytest.mark.slow),
    ],
)
def town(request):
    """A preset of one town at the paper's scale but for its number, and the plan; rows have their poses as arrays."""
    path = SHARED_MAPS / f"{request.param}.xodr"
    if not path.is_file():
        pytest.skip("the real maps are not at hand")
    check_files([path])
    preset = PlanPreset.load("paper").replace(towns=[request.param], recordings_per_town=72)
    began = time.process_time()
    planned = plan_data_set(preset, {request.param: path.read_text()})
    assert time.process_time() - began < CPU_LIMIT_S
    rows = [row | {"poses": np.array(row["poses"]).reshape(-1, 2, 6)} for row in planned.recordings.to_pylist()]
    return preset, planned, rows


def test_every_type_that_the_roads_offer_has_its_number(town):
    preset, planned, rows = town
    assert Counter(row["trajectory_type"] for row in rows) == {
        cell.trajectory_type: 12 for cell in planned.cells if cell.order.count
    }
    without = {cell.trajectory_type: 12 for cell in planned.cells if not cell.order.count}
    assert lacking(preset, planned.cells) == ({preset.towns[0]: without} if without else {})
    assert set(without) <= {"crossing"}


def test_no_site_and_no_junction_dominates(town):
    preset, planned, rows = town
    assert max(Counter((row["trajectory_type"], row["site"]) for row in rows).values()) <= preset.repeats
    for cell in planned.cells:
        uses = [place.uses for place in cell.order.town.parts]
        rooms = [place.room for place in cell.order.town.parts]
        assert all(count >= max(uses) - 1 for count, room in zip(uses, rooms, strict=True) if room), (
            cell.trajectory_type
        )


def test_cars_keep_their_distance_and_their_limits(town):
    preset, _, rows = town
    for row in rows:
        poses = row["poses"]
        assert separation_m(poses[:, 0], poses[:, 1]).min() >= MARGIN_M - 1e-3
        for agent in (0, 1):
            along, across = accelerations(poses[:, agent], row["fixed_delta_s"])
            assert along.max() <= preset.max_acceleration_mps2 + NOISE_MPS2, row["trajectory_type"]
            assert across.max() <= MAX_LATERAL_MPS2 + NOISE_MPS2, row["trajectory_type"]
        if row["trajectory_type"] == "straight_meeting":
            assert closest_approach(poses)[1] <= preset.max_oncoming_m + 2 * preset.lateral_jitter_m + 1
