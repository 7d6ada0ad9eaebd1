"""Real processes: the embedded server through the real client, and servers that are none."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from infra.carla_servers import CarlaServer, CarlaServerError, NotReady, SimulatorSpec
from infra.carla_servers import launcher as launcher_module
from infra.carla_servers import output as output_module
from infra.carla_servers import ports as ports_module
from infra.carla_servers.launcher import processes_of_gpus
from infra.carla_servers.output import ServerOutput
from infra.carla_servers.ports import BLOCK_PORTS, FIRST_PORT, LAST_PORT, PortLease, PortLocksError, PortsError, is_free
from tests.processes import family, listens, until

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


def scripted(folder: Path, script: str, **changes) -> CarlaServer:
    """A CARLA whose executable is this script."""
    return CarlaServer(SimulatorSpec("carla", fake_executable(folder, script), **changes), folder / "logs", "server3")


def test_a_server_that_dies_is_named_with_its_last_words_each_time(tmp_path, caplog, monkeypatch):
    server = scripted(tmp_path, "echo 'no Vulkan device'; echo x >> launches; exit $(wc -l < launches)")
    with pytest.raises(NotReady, match=r"server3 did not start in 3 launches: \(1\) .*\(2\) .*\(3\) ") as caught:
        monkeypatch.chdir(tmp_path)
        server.start()
    for code in (1, 2, 3):
        assert f"ended with code {code}: no Vulkan device" in str(caught.value)
        assert f"server3: launch {code} of 3 failed: the server ended with code {code}: no Vulkan" in caplog.text
    assert "\n" not in str(caught.value)
    assert server.port is None


def test_a_server_that_never_listens_misses_its_deadline(tmp_path):
    server = scripted(tmp_path, "echo loading; exec sleep 60", ready_s=0.5)
    with pytest.raises(NotReady, match=r"was not ready after 0\.5 s: loading\."):
        server.start(launches=1)


def test_a_server_that_says_nothing_is_named_too(tmp_path):
    with pytest.raises(NotReady, match=r"code 0: it wrote nothing \(no Vulkan driver\?\)"):
        scripted(tmp_path, "exit 0").start(launches=1)


def test_only_what_another_launch_may_cure_is_tried_again(tmp_path, monkeypatch, caplog):
    launches = []
    monkeypatch.setattr(CarlaServer, "launch", lambda self: launches.append(1))

    def await_ready(self):
        raise CarlaServerError("CARLA renders in software")

    monkeypatch.setattr(CarlaServer, "await_ready", await_ready)
    with pytest.raises(CarlaServerError, match="in software") as caught:
        scripted(tmp_path, "exit 0").start()
    assert not isinstance(caught.value, NotReady)
    assert len(launches) == 1
    assert "server3 cannot be launched: CARLA renders in software" in caplog.text


def test_a_start_that_hangs_fails_when_it_is_stopped(tmp_path):
    """An actor that is asked to stop, from another thread."""
    server = scripted(tmp_path, "echo loading; sleep 1000; true")
    outcome: list[str] = []

    def start():
        try:
            server.start()
        except NotReady as error:
            outcome.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    until(server.alive)
    server.stop()
    thread.join(10)
    assert outcome[0].startswith("server3 did not start: the server ended with code -15: loading.")
    assert not server.alive()


def test_an_interrupted_start_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    with family() as ours:
        monkeypatch.setenv("SHAREVERSE_TEST_MARK", ours.mark)
        monkeypatch.setattr(CarlaServer, "await_ready", interrupted)
        server = scripted(tmp_path, "sleep 1000; true")
        with pytest.raises(KeyboardInterrupt):
            server.start()
        assert not ours.left(1.0)
    assert server.port is None


def test_unknown_simulators_and_executables_are_refused(tmp_path):
    with pytest.raises(CarlaServerError, match=r"simulator 'unreal' is unknown: it is 'embedded' or 'carla'"):
        SimulatorSpec(kind="unreal").command(2000, None)
    with pytest.raises(CarlaServerError, match=r"'/opt/nothing/CarlaUE4.sh' does not exist or .*: set carla_exec"):
        SimulatorSpec(kind="carla", executable="/opt/nothing/CarlaUE4.sh").command(2000, None)
    path = tmp_path / "CarlaUE4.sh"
    path.write_text("echo a script without its first line")
    path.chmod(0o755)
    with pytest.raises(CarlaServerError, match=r"CarlaUE4.sh could not be started: Exec format error") as caught:
        CarlaServer(SimulatorSpec("carla", str(path)), tmp_path, "server0").start()
    assert not isinstance(caught.value, NotReady)


def test_a_machine_without_processes_left_may_have_some_later(tmp_path, monkeypatch):
    def fork(command):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(launcher_module, "GuardedProcess", fork)
    with pytest.raises(NotReady, match=r"its process could not be started: Resource temporarily unavailable"):
        CarlaServer(SimulatorSpec(), tmp_path, "server0").start()


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(CarlaServerError, match=r"the log .*logs/server3.log cannot be written: File exists\."):
        scripted(tmp_path, "exit 0").start()


def test_the_real_one_is_given_its_gpu(tmp_path):
    spec = SimulatorSpec(kind="carla", executable=fake_executable(tmp_path, "exit 0"), options=("-prefernvidia",))
    command = spec.command(12000, 3)
    assert command[1:] == [
        "-carla-rpc-port=12000", "-RenderOffScreen", "-nosound", "-quality-level=Epic", "-graphicsadapter=3",
        "-prefernvidia",
    ]  # fmt: skip


def test_root_is_told_when_carla_refuses(tmp_path, monkeypatch):
    """Not before: a script around it may well change the user, and the embedded simulator runs as anybody."""
    server = scripted(tmp_path, "echo 'Refusing to run with the root privileges.'; exit 1")
    with pytest.raises(CarlaServerError, match="CARLA refuses to run as root: start the worker as another") as caught:
        server.start()
    assert not isinstance(caught.value, NotReady)
    for user, told in ((0, True), (1000, False)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        with pytest.raises(NotReady) as caught:
            scripted(tmp_path, "echo something else; exit 1").start(launches=1)
        assert ("CARLA refuses to run as root, and this is root." in str(caught.value)) is told


def drained(folder: Path, *command: str, words: tuple[str, ...] = ()) -> ServerOutput:
    output = ServerOutput(folder / "server.log", words)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        output.drain(process.stdout)
    return output


def test_software_rendering_is_refused_for_this_launch_alone(tmp_path):
    server = CarlaServer(SimulatorSpec(kind="carla"), tmp_path, "server")
    words = launcher_module.SOFTWARE_RENDERERS
    server.output = drained(tmp_path, "echo", "LogVulkanRHI: Display: Device 0: LLVMpipe (LLVM 15.0.7)", words=words)
    with pytest.raises(CarlaServerError, match=r"renders in software \(llvmpipe\)"):
        server.check_renderer()
    server.output = drained(tmp_path, "echo", "LogVulkanRHI: Display: Device 0: NVIDIA H100", words=words)
    server.check_renderer()
    assert "LLVMpipe" in server.log.read_text()


SMI = """cat <<END
# gpu         pid   type     sm    mem    enc    dec    jpg    ofa    command
# Idx           #    C/G      %      %      %      %      %      %    name
    0          -     -      -      -      -      -      -      -    -
    1       {pid}   C+G     97     30      -      -      -      -    CarlaUE4-Linux-
END"""


def test_the_gpu_is_told_by_the_pids_of_the_whole_tree(tmp_path, monkeypatch, caplog):
    smi = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    server = scripted(tmp_path, "sleep 1000; true")
    server.launch()
    try:
        child = psutil.Process(server.pid)
        until(child.children)
        smi.write_text("#!/bin/sh\n" + SMI.format(pid=child.children()[0].pid))
        smi.chmod(0o755)
        assert processes_of_gpus() == [(1, child.children()[0].pid)]
        server.gpu = 1
        server.check_gpu()
        server.gpu = 0
        with pytest.raises(CarlaServerError, match=r"server3 runs on GPU 1 instead of 0: check -graphicsadapter"):
            server.check_gpu()
        smi.write_text("#!/bin/sh\n" + SMI.format(pid=1))
        server.check_gpu()
        assert "nvidia-smi does not tell on which GPU it runs" in caplog.text
    finally:
        server.stop()


def test_the_log_of_a_talkative_server_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(output_module, "LOG_BYTES", 10_000)
    assert drained(tmp_path, "seq", "100000").last_line == "100000"
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 20_000
    assert (tmp_path / "server.log").read_text().endswith("100000\n")


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path):
    output = drained(tmp_path, "head", "-c", "1000000", "/dev/zero")
    assert len(output.last_line) <= output_module.LINE_BYTES


def test_a_log_that_fails_is_said_once_and_the_server_runs_on(tmp_path, caplog):
    (tmp_path / "server.log").symlink_to("/dev/full")
    output = drained(tmp_path, "seq", "1000")
    assert output.last_line == "1000"
    assert caplog.text.count("The output of a server is lost") == 1


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
    assert all(abs(a - b) >= BLOCK_PORTS for a in ports for b in ports if a != b)
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
    monkeypatch.setattr(ports, "LAST_PORT", FIRST_PORT + 3 * BLOCK_PORTS)
    assert LAST_PORT < 32768
    with pytest.raises(PortsError, match="no free block of 4 ports between 11000 and 11012: end other simulators"):
        PortLease()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOLCK, "No locks available"),
        (errno.EOPNOTSUPP, "Operation not supported"),
        (errno.EROFS, "Read-only file system"),
    ],
)
def test_a_file_system_without_locks_is_said_so(tmp_path, monkeypatch, number, words):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(PortLocksError, match=rf"cannot be locked \({words}\); set TMPDIR to a folder .* local disk"):
        PortLease()
    with pytest.raises(CarlaServerError, match="ports cannot be leased") as caught:
        CarlaServer(SimulatorSpec(), tmp_path, "server0").start()
    assert not isinstance(caught.value, NotReady)


def test_a_folder_of_locks_that_is_somebody_elses_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(ports_module.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"shareverse-ports-{os.getuid()}"
    folder.symlink_to("/tmp")
    with pytest.raises(PortLocksError, match="is not a folder of this user: remove it or set TMPDIR"):
        PortLease()
    folder.unlink()
    folder.write_text("a file")
    with pytest.raises(PortLocksError, match=r"cannot be made \(.*File exists"):
        PortLease()
    monkeypatch.setattr(ports_module.tempfile, "gettempdir", lambda: str(tmp_path / "none"))
    with pytest.raises(PortLocksError, match=r"cannot be made \(.*No such file"):
        PortLease()


def test_ports_that_are_all_taken_may_be_free_later(tmp_path, monkeypatch):
    monkeypatch.setattr(ports_module, "is_free", lambda port: False)
    monkeypatch.setattr(ports_module, "LAST_PORT", FIRST_PORT + 3 * BLOCK_PORTS)
    with pytest.raises(NotReady, match="no free block"):
        CarlaServer(SimulatorSpec(), tmp_path, "server0").start()


STRAY = """
import sys
import threading
from pathlib import Path
from infra.carla_servers import CarlaServer, SimulatorSpec
server = CarlaServer(SimulatorSpec("carla", sys.argv[2]), Path(sys.argv[1]), "orphan").start()
print(server.port, flush=True)
sys.stdin.read()
"""
STAND_IN = f'{sys.executable} -m infra.minicarla "$@"\ntrue'
"""As CarlaUE4.sh is shipped: the server is a child, not exec'ed."""


@pytest.fixture
def stray(tmp_path):
    """A process with a server behind a script, its port and its family."""
    with family() as ours:
        command = [sys.executable, "-c", STRAY, str(tmp_path), fake_executable(tmp_path, STAND_IN)]
        parent = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=ours.environment
        )
        yield parent, int(parent.stdout.readline()), ours
        parent.kill()
        parent.wait(10)
        parent.stdin.close()
        parent.stdout.close()


def test_a_server_behind_a_script_ends_with_a_killed_parent(stray):
    parent, port, ours = stray
    assert listens(port)
    assert {port, port + 1} <= ours.ports()
    parent.kill()
    assert not ours.left()
    assert not listens(port)
    assert is_free(port)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["CarlaUE4.sh", "infra.minicarla"])
def test_a_server_behind_a_script_ends_with_either_of_the_two(tmp_path, monkeypatch, victim):
    with family() as ours:
        monkeypatch.setenv("SHAREVERSE_TEST_MARK", ours.mark)
        server = scripted(tmp_path, STAND_IN)
        with server:
            port = server.port
            assert server.client.get_world().get_map().name.endswith("Mini01")
            assert len(server.process.tree()) == 2
            (found,) = [process for process in ours.alive(victim) if process.pid in server.process.tree()]
            found.kill()
            assert server.process.wait(10.0) is not None
            assert not server.alive()
            assert not ours.left(1.0)
            assert not listens(port)
