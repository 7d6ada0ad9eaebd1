"""Real processes: the embedded server through the real client, and servers that are none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.carla_servers import CarlaServer, CarlaServerError, SimulatorSpec
from infra.carla_servers import launcher as launcher_module
from infra.carla_servers.ports import BLOCK, FIRST, LAST, PortLease, PortsError, is_free

ROOT = Path(__file__).resolve().parents[3]


def ends(pid: int, within_s: float = 10.0) -> bool:
    """Wait for a process to end, whoever its parent is."""
    try:
        psutil.Process(pid).wait(within_s)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with CarlaServer(SimulatorSpec(), tmp_path_factory.mktemp("logs"), "server0") as running:
        yield running


def test_a_started_server_answers_and_is_asynchronous_again(server):
    world = server.client.get_world()
    assert world.get_map().name.endswith("Mini01")
    assert not world.get_settings().synchronous_mode
    world.wait_for_tick(10.0)  # the list of actors is that of the last state
    assert not [actor for actor in world.get_actors() if actor.type_id.startswith("sensor")]
    assert "embedded CARLA 0.9.16" in server.log.read_text()


def test_it_listens_on_the_loopback_only(server):
    addresses = [c.laddr for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert {address.port for address in addresses} == {server.port, server.port + 1}
    assert {address.ip for address in addresses} == {"127.0.0.1"}


def test_stop_ends_the_process_and_gives_the_ports_back(tmp_path):
    server = CarlaServer(SimulatorSpec(), tmp_path, "server0").start()
    pid, port = server.pid, server.port
    server.stop()
    assert ends(pid)
    assert server.port is None
    assert is_free(port)
    assert not server.alive()
    server.stop()  # a second time does no harm


def test_a_version_that_differs_is_one_sentence(tmp_path, monkeypatch):
    import carla

    monkeypatch.setattr(carla.Client, "get_server_version", lambda self: "0.9.15")
    server = CarlaServer(SimulatorSpec(), tmp_path, "server0")
    with pytest.raises(CarlaServerError, match=r"server is CARLA 0\.9\.15 and the client 0\.9\.16: install") as caught:
        server.start()
    assert "\n" not in str(caught.value)
    assert not server.alive()


def fake_executable(folder: Path, script: str) -> str:
    path = folder / "CarlaUE4.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_server_that_dies_is_named_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    spec = SimulatorSpec(kind="carla", executable=fake_executable(tmp_path, "echo 'no Vulkan device'; exit 7"))
    server = CarlaServer(spec, tmp_path, "server3")
    with pytest.raises(CarlaServerError, match=r"server3 did not start in 3 launches.*code 7: no Vulkan device"):
        server.start()
    assert server.port is None


def test_a_server_that_never_listens_misses_its_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(launcher_module, "LAUNCHES", 1)
    spec = SimulatorSpec(kind="carla", executable=fake_executable(tmp_path, "exec sleep 60"), ready_s=0.5)
    with pytest.raises(CarlaServerError, match=r"was not ready after 0\.5 s"):
        CarlaServer(spec, tmp_path, "server0").start()


def test_unknown_simulators_and_executables_are_refused(tmp_path):
    with pytest.raises(CarlaServerError, match=r"simulator 'unreal' is unknown: it is 'embedded' or 'carla'"):
        SimulatorSpec(kind="unreal").command(2000, None)
    with pytest.raises(CarlaServerError, match=r"'/opt/nothing/CarlaUE4.sh' does not exist: set carla_executable"):
        SimulatorSpec(kind="carla", executable="/opt/nothing/CarlaUE4.sh").command(2000, None)


def test_the_real_one_is_given_its_gpu_and_refuses_root(tmp_path, monkeypatch):
    spec = SimulatorSpec(kind="carla", executable=fake_executable(tmp_path, "exit 0"), options=("-prefernvidia",))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(CarlaServerError, match="refuses to run as root"):
        spec.command(2000, None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    command = spec.command(12000, 3)
    assert command[1:] == [
        "-carla-rpc-port=12000", "-RenderOffScreen", "-nosound", "-quality-level=Epic", "-graphicsadapter=3",
        "-prefernvidia",
    ]  # fmt: skip


def test_software_rendering_is_refused(tmp_path):
    server = CarlaServer(SimulatorSpec(kind="carla"), tmp_path, "server0")
    server.log.write_text("LogVulkanRHI: Display: Device 0: llvmpipe (LLVM 15.0.7)")
    with pytest.raises(CarlaServerError, match=r"renders in software \(llvmpipe\)"):
        server.refuse_software_rendering()


def test_the_log_of_a_talkative_server_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher_module, "LOG_BYTES", 10_000)
    with subprocess.Popen(["seq", "100000"], stdout=subprocess.PIPE) as process:
        launcher_module.drain(process.stdout, tmp_path / "server.log")
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 20_000
    assert (tmp_path / "server.log").read_text().endswith("100000\n")


HOLDER = """
import sys
from infra.carla_servers.ports import PortLease
lease = PortLease()
print(lease.port, flush=True)
sys.stdin.read()
"""


def test_port_leases_of_processes_never_collide_and_end_with_their_holder():
    holders = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(3)
    ]
    ports = [int(holder.stdout.readline()) for holder in holders]
    mine = PortLease()
    assert len({*ports, mine.port}) == 4
    assert all(abs(a - b) >= BLOCK for a in ports for b in ports if a != b)
    holders[0].send_signal(signal.SIGKILL)
    holders[0].wait(10)
    fresh = PortLease()
    assert fresh.port <= ports[0]
    for holder in holders:
        holder.kill()
        holder.wait(10)
        holder.stdin.close()
        holder.stdout.close()
    mine.release()
    fresh.release()


def test_no_free_ports_is_one_sentence(monkeypatch):
    from infra.carla_servers import ports

    monkeypatch.setattr(ports, "is_free", lambda port: False)
    monkeypatch.setattr(ports, "LAST", FIRST + 3 * BLOCK)
    assert LAST < 32768
    with pytest.raises(PortsError, match="no free block of 4 ports between 11000 and 11012: end other simulators"):
        PortLease()


PARENT = """
import sys
from pathlib import Path
from infra.carla_servers import CarlaServer, SimulatorSpec
server = CarlaServer(SimulatorSpec(), Path(sys.argv[1]), "orphan")
server.launch()
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_a_server_dies_with_a_killed_parent(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait(10)
    assert ends(pid)
    parent.stdin.close()
    parent.stdout.close()


def test_the_guard_does_not_start_anything_for_a_parent_that_is_gone():
    command = [sys.executable, "-m", "infra.carla_servers.guard", "1", "echo", "started"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "started" not in done.stdout
    assert "is gone" in done.stderr
