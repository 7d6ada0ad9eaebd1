"""`python -m infra.minicarla` with its real towns and renderer, driven by the unmodified client."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import carla
import numpy as np
import psutil
import pytest

from infra.minicarla.__main__ import check_options, option_parser

ROOT = Path(__file__).resolve().parents[3]
TOWNS = [f"Mini{n:02d}" for n in range(1, 13)]
LOAD_CPU_S = 20.0
"""For the server and the processes that it starts, several times what it takes: a busy machine's CPU seconds count for
less, and wall time says more about what else it does."""
CAR, ROAD = 14, 1


def free_port() -> int:
    """A port whose successor is free too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 1))
                return port


def start(*options: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "infra.minicarla", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def served():
    """A server process and its port."""
    number = free_port()
    process = start(f"-carla-rpc-port={number}", "-RenderOffScreen", "-nosound", "-quality-level=Epic")
    assert process.stdout is not None
    assert f"127.0.0.1:{number}, pid {process.pid}" in process.stdout.readline()
    yield process, number
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def port(served):
    return served[1]


def connect(number: int) -> carla.Client:
    client = carla.Client("127.0.0.1", number, worker_threads=8)
    client.set_timeout(60.0)
    return client


@contextlib.contextmanager
def two_cameras(world: carla.World):
    """A red coupe ahead of an RGB and a semantic camera, in step; yields the function that ticks and returns both."""
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 1 / 30
    world.apply_settings(settings)
    library, pose = world.get_blueprint_library(), world.get_map().get_spawn_points()[7]
    coupe = library.find("vehicle.audi.tt")
    coupe.set_attribute("color", "178,14,20")
    ahead = pose.transform(carla.Location(8.0, 0.0, 0.0))
    world.spawn_actor(coupe, carla.Transform(ahead, pose.rotation))
    eye = carla.Transform(pose.location + carla.Location(z=1.75), pose.rotation)
    sensors, images = [], [queue.Queue(), queue.Queue()]
    for kind, inbox in zip(("rgb", "semantic_segmentation"), images, strict=True):
        blueprint = library.find(f"sensor.camera.{kind}")
        blueprint.set_attribute("image_size_x", "192")
        blueprint.set_attribute("image_size_y", "128")
        sensors.append(world.spawn_actor(blueprint, eye))

        def keep(image, inbox=inbox):
            pixels = np.frombuffer(image.raw_data, np.uint8).reshape(image.height, image.width, 4).copy()
            inbox.put((image.frame, pixels))

        sensors[-1].listen(keep)

    def tick() -> list[np.ndarray]:
        frame, pictures = world.tick(60.0), []
        for inbox in images:
            number, pixels = inbox.get(timeout=60.0)
            while number < frame:
                number, pixels = inbox.get(timeout=60.0)
            pictures.append(pixels)
        return pictures

    try:
        yield tick
    finally:
        for sensor in sensors:
            sensor.stop()


@pytest.mark.slow
def test_all_towns_load_and_render_in_time_and_memory(served):
    """The first picture comes with the town's scenery; what numba compiles once on a machine is not the town's."""
    process, port = psutil.Process(served[0].pid), served[1]
    client = connect(port)
    with two_cameras(client.load_world(TOWNS[-1])) as tick:
        tick()
    before = process.memory_info().rss / 2**20
    times, memory = {}, {}
    for name in TOWNS:
        begun = sum(process.cpu_times()[:4])
        with two_cameras(client.load_world(name)) as tick:
            colours, codes = tick()
            times[name] = sum(process.cpu_times()[:4]) - begun
            memory[name] = process.memory_info().rss / 2**20
        tags = codes[..., 2]
        assert 45 < colours[..., :3].mean() < 200, name
        assert (tags[90:] == ROAD).mean() > 0.3, name
        assert (tags == CAR).sum() > 100, name
        red = colours[tags == CAR].astype(float)
        assert ((red[:, 2] > 1.6 * red[:, 1]) & (red[:, 2] > 60)).mean() > 0.3, name
    assert max(times.values()) < LOAD_CPU_S, times
    psutil.wait_procs(process.children(), timeout=20.0)  # the last town's builder may just be ending
    assert not process.children()
    assert memory[TOWNS[-1]] < before + 250, (before, memory)  # the same town again: eleven others are gone


def test_a_second_client_watches_while_the_first_records(port):
    first = connect(port)
    with two_cameras(first.load_world("Mini01")) as tick:
        before, _ = tick()
        second = connect(port).get_world()
        deadline = time.monotonic() + 20.0
        while not len(second.get_actors().filter("vehicle.*")) and time.monotonic() < deadline:
            tick()  # the world's state comes with a tick
        assert len(second.get_actors().filter("vehicle.*")) == 1
        assert second.get_map().name.endswith("Mini01")
        seen: queue.Queue = queue.Queue()
        own = second.get_actors().filter("sensor.camera.rgb")[0]
        own.listen(lambda image: seen.put(bytes(image.raw_data)))
        after, _ = tick()
        assert seen.get(timeout=30.0) == after.tobytes() == before.tobytes()
        own.stop()


def test_weather_changes_the_picture(port):
    world = connect(port).load_world("Mini01")
    with two_cameras(world) as tick:
        noon, _ = tick()
        weather = world.get_weather()
        weather.fog_density = 60.0
        world.set_weather(weather)
        fog, _ = tick()
    assert fog[..., :3].std() < 0.8 * noon[..., :3].std()


def test_numbers_that_are_not_finite_are_refused(port):
    world = connect(port).load_world("Mini01")
    weather = world.get_weather()
    weather.fog_density = float("nan")
    world.set_weather(weather)  # CARLA's client does not wait for an answer
    assert world.get_weather().fog_density == 0.0
    coupe = world.get_blueprint_library().find("vehicle.audi.tt")
    with pytest.raises(RuntimeError, match=r"transform location x is inf: give a finite number"):
        world.spawn_actor(coupe, carla.Transform(carla.Location(float("inf"), 0, 0)))


ASK = """
import sys, time
import carla
client = carla.Client("127.0.0.1", int(sys.argv[1]), worker_threads=1)
client.set_timeout(60.0)
client.get_world()
print("ready", flush=True)
sys.stdin.readline()
while True:
    begun = time.monotonic()
    client.get_server_version(); client.get_world().get_weather()
    print(begun, time.monotonic(), flush=True)
"""


def test_others_are_answered_while_a_tick_waits_for_scenery(port):
    command = [sys.executable, "-c", ASK, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "ready\n"
            with two_cameras(connect(port).load_world("Mini10")) as tick:
                print("go", file=other.stdin, flush=True)
                begun = time.monotonic()
                tick()
                ended = time.monotonic()
        finally:
            other.kill()
        # The last line may be cut short by the kill.
        asked = np.array([[float(word) for word in line.split()] for line in other.stdout if line.endswith("\n")])
    during = asked[(asked[:, 0] > begun) & (asked[:, 1] < ended)]
    waits = during[:, 1] - during[:, 0]
    assert len(waits) >= 10, waits
    assert np.median(waits) < 0.1 * (ended - begun), (waits, ended - begun)
    assert waits.max() < 0.6 * (ended - begun), (waits, ended - begun)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once(number):
    process = start(f"-carla-rpc-port={free_port()}")
    assert process.stdout is not None
    assert "embedded CARLA" in process.stdout.readline()
    process.send_signal(number)
    assert process.wait(timeout=10.0) == 0
    assert process.communicate()[1] == ""


def refused(*options: str) -> str:
    """What a start that must fail prints."""
    process = start(*options)
    output, error = process.communicate(timeout=60.0)
    assert process.returncode == 2
    assert output == ""
    assert "Traceback" not in error
    return error


def test_help_names_the_options():
    process = start("--help")
    assert {"-carla-rpc-port", "--maps", "--town", "--threads"} <= set(
        process.communicate()[0].replace(" N", " ").split()
    )
    assert process.returncode == 0


def test_a_start_that_cannot_work_says_why_in_one_sentence():
    error = refused(f"-carla-rpc-port={free_port()}", "--town", "Atlantis")
    assert "there is no town 'Atlantis'" in error
    assert len(error.splitlines()) == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        assert f"Port {number} is taken" in refused(f"-carla-rpc-port={number}")


def test_bad_options_are_one_sentence(tmp_path, capsys):
    def reason(*given: str) -> str:
        with pytest.raises(ValueError, match=r".+") as error:
            check_options(option_parser().parse_args(given))
        return str(error.value)

    assert "missing: there is no such folder" in reason("--maps", str(tmp_path / "missing"))
    assert "holds no .xodr file" in reason("--maps", str(tmp_path))
    assert "-carla-rpc-port=70000 is no port" in reason("-carla-rpc-port=70000")
    assert "-carla-streaming-port=65536 is no port" in reason("-carla-rpc-port=65535")
    assert "--threads 0" in reason("--threads", "0")
    with pytest.raises(SystemExit):
        option_parser().parse_args(["--fast"])
    assert "unrecognized arguments: --fast" in capsys.readouterr().err


BROKEN = {
    "empty": b"",
    "cut": b"<?xml version='1.0'?><OpenDRIVE><road",
    "no_roads": b"<?xml version='1.0'?><OpenDRIVE><header/></OpenDRIVE>",
    "latin": "<?xml version='1.0' encoding='latin-1'?><OpenDRIVE name='Köln'/>".encode("latin-1"),
}
NOT_UTF8 = b"caf\xe9.xodr"


def test_a_map_is_read_when_it_is_asked_for_and_a_bad_one_is_its_askers_alone(tmp_path, port):
    opendrive = connect(port).load_world("Mini03").get_map().to_opendrive()
    for name in ("Mine", "Mini02", *(f"Copy{k}" for k in range(40))):
        (tmp_path / f"{name}.xodr").write_text(opendrive)
    for name, text in BROKEN.items():
        (tmp_path / f"{name}.xodr").write_bytes(text)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + NOT_UTF8)).write_text(opendrive)
    (tmp_path / "folder.xodr").mkdir()
    number = free_port()
    process = start(f"-carla-rpc-port={number}", "--maps", str(tmp_path), "--town", "Mine")
    assert process.stdout is not None
    try:
        heard = []
        while "embedded CARLA" not in (line := process.stdout.readline()):
            heard.append(line)
        assert len(heard) == 3
        assert {reason in "".join(heard) for reason in ("Mini02", "no file", r"caf\udce9.xodr")} == {True}
        client = connect(number)
        assert client.get_world().get_map().name.endswith("Mine")
        names = [name.rsplit("/", 1)[1] for name in client.get_available_maps()]
        assert sorted(names) == sorted([*TOWNS, "Mine", *BROKEN, *(f"Copy{k}" for k in range(40))])
        for name in BROKEN:
            with pytest.raises(RuntimeError, match=rf"{name}.* cannot be a town"):
                client.load_world(name)
        assert connect(number).get_world().get_map().name.endswith("Mine")
        with pytest.raises(RuntimeError, match="cannot be a town"):
            client.generate_opendrive_world("<OpenDRIVE/>")
        with two_cameras(client.get_world()) as tick:
            assert (tick()[1][..., 2] == CAR).sum() > 100
    finally:
        process.kill()
        process.communicate()
