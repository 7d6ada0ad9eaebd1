"""Server, script and recorder are killed while a few short recordings are made: equal bytes, and no process is left.

At length, with the whole run as a victim too: `python -m tests.tasks.recording.long_faults`.
"""

from __future__ import annotations

import random

import pytest

from infra.actor_pool import LOSSES
from tasks.recording.ledger import read_ledger
from tests.conftest import SPEC
from tests.processes import family, until
from tests.tasks.recording.faults import (
    VICTIMS,
    copy_plan,
    kill,
    record_undisturbed,
    recordings,
    stand_in,
    start_recording,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SHORT = {"towns": ["Mini01"], "test_towns": [], "ticks": 30, "frames": 9, "windows": [0]}
COUNT = 5
"""Recordings; each victim is killed once, after another number of them is done."""


@pytest.mark.parametrize("seed", [1])
def test_random_kills_change_no_byte_and_leave_nothing(tmp_path, seed):
    undisturbed = tmp_path / "undisturbed"
    assert record_undisturbed(undisturbed, SPEC, **SHORT, recordings_per_town=COUNT) == COUNT
    folder, draw = copy_plan(undisturbed, tmp_path / "disturbed"), random.Random(seed)
    after = sorted(draw.sample(range(1, COUNT), len(VICTIMS)))
    schedule = dict(zip(after, draw.sample(VICTIMS, len(VICTIMS)), strict=True))
    with family() as ours:
        process = start_recording(folder, ours, stand_in(tmp_path))
        told = ""
        for line in process.stdout:
            told = line
            victim = schedule.pop(int(line), None) if line.strip().isdigit() else None
            if victim:
                until(lambda victim=victim: kill(ours, victim), 120)
        assert process.wait(60) == 0
        process.stdout.close()
        assert f"recorded={COUNT}" in told
        assert not schedule
        assert not ours.left()
    assert recordings(folder) == recordings(undisturbed)
    states, events = read_ledger(folder)
    assert set(states.values()) == {"done"}
    assert len(events) >= len(VICTIMS)
    assert {event.kind for event in events} <= set(LOSSES)
