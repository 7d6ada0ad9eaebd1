"""SIGKILL of a server and of the whole run in mid-recording: the next run ends with the same shards, byte for byte."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from infra.storage import TEMPORARY_PREFIX
from tasks.recording.pool import record_plan
from tasks.sharding.shards import write_shards
from tests.conftest import SPEC
from tests.processes import family
from tests.tasks.recording.faults import copy_plan, find, shards, start_recording

pytestmark = pytest.mark.slow


@pytest.fixture
def planned_only(tiny, tmp_path):
    """The plan of `tiny`, with nothing recorded."""
    return copy_plan(tiny.folder, tmp_path / "tiny")


@pytest.fixture
def ours():
    with family() as new:
        yield new


@pytest.fixture
def driver(planned_only, ours):
    process = start_recording(planned_only, ours)
    yield process
    process.kill()
    process.wait(10)
    process.stdout.close()


def await_half_a_recording(driver: subprocess.Popen, folder: Path) -> None:
    """Return once one recording is done and the second's videos are open."""
    for line in driver.stdout:
        if line.strip() == "1":
            break
    deadline = time.monotonic() + 60
    while not list(folder.glob(f"recordings/{TEMPORARY_PREFIX}*/w*")):
        assert time.monotonic() < deadline, "no second recording began"
        assert driver.poll() is None
        time.sleep(0.01)  # the file system has no event to wait for


def test_a_killed_server_costs_nothing_but_time(tiny, planned_only, driver, ours):
    await_half_a_recording(driver, planned_only)
    (server,) = find(ours, "server")
    server.send_signal(signal.SIGKILL)
    told = driver.stdout.read()
    assert driver.wait(120) == 0
    assert "recorded=2" in told
    assert (planned_only / "logs" / "server0.log").read_text().count("embedded CARLA 0.9.16 on") == 2
    assert write_shards(planned_only).digest == tiny.sharding.digest
    assert shards(planned_only) == shards(tiny.folder)


def test_a_killed_driver_takes_its_servers_along(tiny, planned_only, driver, ours):
    await_half_a_recording(driver, planned_only)
    assert find(ours, "server")
    driver.kill()
    driver.wait(10)
    assert not ours.left()
    again = record_plan(planned_only, SPEC, servers=2)
    assert again.recorded + again.already_done == 2
    assert write_shards(planned_only).digest == tiny.sharding.digest
    assert shards(planned_only) == shards(tiny.folder)


def test_what_was_half_done_when_everything_died_is_made_anew(tiny, planned_only, driver, ours):
    await_half_a_recording(driver, planned_only)
    ours.kill()
    assert list(planned_only.glob(f"recordings/{TEMPORARY_PREFIX}*"))
    again = record_plan(planned_only, SPEC, servers=2)
    assert (again.recorded, again.already_done) == (1, 1)
    assert not list(planned_only.glob(f"recordings/{TEMPORARY_PREFIX}*"))
    assert write_shards(planned_only).digest == tiny.sharding.digest
    assert shards(planned_only) == shards(tiny.folder)
