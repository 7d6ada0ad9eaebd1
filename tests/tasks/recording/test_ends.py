"""Whatever ends a recording, nothing that it started is alive ten seconds later and its ports are free.

The server stands behind a script that does not exec it, as CarlaUE4.sh is shipped; the script also starts one that left
its session. Fast variants without a simulator: tests/infra/process_guard.
"""

from __future__ import annotations

import pytest

from tests.processes import Family, family, listens, until
from tests.tasks.recording.faults import copy_plan, stand_in, start_recording

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def planned_only(tiny, tmp_path):
    """The plan of `tiny`, with nothing recorded, and the stand-in for CARLA."""
    stand_in(tmp_path)
    return copy_plan(tiny.folder, tmp_path / "tiny")


@pytest.fixture
def recording(planned_only):
    """A driver, its family and the server's port, once it listens."""
    with family() as ours:
        process = start_recording(planned_only, ours, planned_only.parent / "CarlaUE4.sh", recycle=1)
        until(lambda: server_ports(ours) or process.poll() is not None, 400)
        (port,) = server_ports(ours)
        yield process, ours, port
        process.kill()
        process.wait(10)
        process.stdout.close()


def server_ports(ours: Family) -> set[int]:
    """Return the ports of our servers that listen."""
    words = [word for _, command in ours.commands() for word in command]
    found = {int(word.split("=")[1]) for word in words if word.startswith("-carla-rpc-port=")}
    return {port for port in found if listens(port)}


def simulators(ours: Family) -> list[str]:
    """Return what runs of the simulator: servers, scripts, supervisors and the one in another session."""
    lines = [" ".join(command) for _, command in ours.commands() if command[1:2] != ["-c"]]
    return [line for line in lines if any(word in line for word in ("CarlaUE4.sh", "minicarla", "sleep 100000"))]


def test_recycled_servers_and_a_run_that_ends_leave_nothing(recording, planned_only):
    process, ours, port = recording
    told = process.stdout.read()
    assert process.wait(400) == 0
    assert "recorded=2" in told
    assert (planned_only / "logs" / "server0.log").read_text().count("embedded CARLA 0.9.16 on") == 2
    assert not ours.left()
    assert port not in ours.ports()
    assert not listens(port + 1)


@pytest.mark.parametrize("victim", ["driver", "ray::RecorderActor", "raylet/raylet", "gcs_server"])
def test_a_kill_leaves_nothing(recording, victim):
    process, ours, port = recording
    if victim == "driver":
        process.kill()
    else:
        for found, command in ours.commands():
            if victim in command[0]:
                found.kill()
    until(lambda: port not in server_ports(ours), 10)
    if victim == "ray::RecorderActor":  # the run goes on with another server
        assert "recorded=2" in process.stdout.read()
    if victim in ("driver", "ray::RecorderActor"):
        assert not ours.left()
    else:
        until(lambda: not simulators(ours), 10)
    assert port not in ours.ports()
    assert not listens(port + 1)


@pytest.mark.parametrize("victim", ["CarlaUE4.sh", "-m infra.minicarla"])
def test_half_a_server_is_replaced_and_leaves_nothing(recording, victim):
    process, ours, port = recording
    for found in ours.alive(victim):
        if "-S" not in found.cmdline() and found.cmdline()[1:2] != ["-c"]:
            found.kill()
    until(lambda: port not in server_ports(ours), 10)
    assert "recorded=2" in process.stdout.read()
    assert not ours.left()
    assert port not in ours.ports()
