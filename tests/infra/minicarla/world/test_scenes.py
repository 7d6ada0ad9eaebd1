"""Scenery is built beside the world: calls are answered meanwhile, and what waits for it stays right."""

from __future__ import annotations

import gc
import itertools
import socket
import struct
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor

import msgpack
import numpy as np
import pytest

from infra.minicarla.protocol.wire import SENSOR_HEADER, TOKEN
from infra.minicarla.scenery import Town
from infra.minicarla.server import Server, Towns

AT_ONCE_S = 5.0
"""What a call may take that must not wait: builds of these tests never end by themselves."""
SYNCHRONOUS = [True, False, [True, 0.05], True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True]
PLACE = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


class Black:
    """A renderer of black pictures."""

    def render(self, cameras, bodies, weather):
        return [np.zeros((camera.height, camera.width, 4), np.uint8) for camera in cameras]


class Build:
    """A build that ends when the test says so."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.outcome: Future = Future()

    def result(self):
        return self.outcome.result()

    def cancel(self) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(ValueError("it was given up"))


class Client:
    """Speaks CARLA's msgpack-rpc, one call at a time; the real client holds Python's lock while it waits."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.unpacker, self.numbers = msgpack.Unpacker(raw=False), itertools.count()

    def call(self, name: str, *arguments, timeout_s: float = AT_ONCE_S):
        self.socket.settimeout(timeout_s)
        self.socket.sendall(msgpack.packb([0, next(self.numbers), name, [False, *arguments]]))
        while True:
            for _, _, error, result in self.unpacker:
                assert error is None, error
                if result[0][0] is True or (result[0][0] == 0 and len(result[0]) == 2):
                    raise RuntimeError(result[0][1][0])
                return result[0][-1]
            self.unpacker.feed(self.socket.recv(1 << 16))


class Stage:
    """A server of towns A, B, C whose scenery the test finishes by hand."""

    def __init__(self) -> None:
        self.builds: list[Build] = []
        self.begun = threading.Semaphore(0)
        self.clients: list[Client] = []
        self.readers: list[Images] = []
        self.pool = ThreadPoolExecutor(8)
        with socket.socket() as first, socket.socket() as second:
            for probe in (first, second):
                probe.bind(("127.0.0.1", 0))
            self.port, streaming_port = (probe.getsockname()[1] for probe in (first, second))
        towns = Towns(lambda: ["A", "B", "C"], self.load, self.upload, self.build)
        self.server = Server(self.port, towns, streaming_port=streaming_port)
        self.server.start()

    def load(self, name: str) -> Town:
        if name not in ("A", "B", "C"):
            raise ValueError(f"there is no town {name!r}")
        return Town(name, "", ((0.0,) * 6,), "grid", 0)

    def upload(self, name: str, text: str) -> Town:
        return Town(name, text, ((0.0,) * 6,), "grid", 0)

    def build(self, town: Town) -> Build:
        self.builds.append(Build(town))
        self.begun.release()
        return self.builds[-1]

    def client(self) -> Client:
        self.clients.append(Client(self.port))
        return self.clients[-1]

    def later(self, *call) -> Future:
        """Make a call that may have to wait, on a connection of its own."""
        return self.pool.submit(self.client().call, *call, timeout_s=60.0)

    def camera(self) -> Images:
        """Spawn a camera and listen to it."""
        client = self.client()
        definition = self.server.world.definitions["sensor.camera.rgb"]
        attributes = [list(attribute[:3]) for attribute in definition[3] if not attribute[0].startswith("image_size")]
        attributes += [["image_size_x", 1, "8"], ["image_size_y", 1, "4"]]
        actor = client.call("spawn_actor", [definition[0], "sensor.camera.rgb", attributes], PLACE)
        images = Images(*TOKEN.unpack(actor[5])[:2])
        self.readers.append(images)
        wait_for(lambda: self.server.streams.has_readers(images.stream))
        return images

    def close(self) -> None:
        for build in self.builds:
            build.cancel()
        for connection in (*self.clients, *self.readers):
            connection.socket.close()
        self.server.stop()
        self.pool.shutdown()


class Images:
    """A subscriber of a camera's stream."""

    def __init__(self, stream: int, port: int) -> None:
        self.stream = stream
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(struct.pack("<I", stream))

    def frame(self, timeout_s: float = 20.0) -> int:
        """Wait for an image; return the frame that it carries."""
        self.socket.settimeout(timeout_s)
        (size,) = struct.unpack("<I", self.read(4))
        return SENSOR_HEADER.unpack(self.read(size)[: SENSOR_HEADER.size])[1]

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self.socket.recv(count - len(data)) or pytest.fail("the stream ended")
        return data


def wait_for(condition, timeout_s: float = 10.0) -> None:
    tried = threading.Event()
    for _ in range(int(timeout_s / 0.01)):
        if condition():
            return
        tried.wait(0.01)
    pytest.fail("it did not come true")


@pytest.fixture
def stage():
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def client(stage):
    return stage.client()


def waiting(stage: Stage, count: int) -> None:
    wait_for(lambda: len(stage.server.world.waiting_ticks) == count)


def test_calls_are_answered_while_a_tick_waits_and_its_images_are_of_its_frame(stage, client):
    client.call("set_episode_settings", SYNCHRONOUS)
    images = stage.camera()
    tick = stage.later("tick_cue")
    waiting(stage, 1)
    frame = stage.server.world.frame
    assert client.call("version") == "0.9.16"
    assert client.call("get_episode_info")[0] == 1
    assert client.call("get_map_info")[0] == "Carla/Maps/A"
    assert client.call("get_actors_by_id", list(stage.server.world.actors))
    with pytest.raises(RuntimeError, match="no town 'Atlantis'"):
        client.call("load_new_episode", "Atlantis", True, 0)
    assert not tick.done()
    assert stage.server.world.frame == frame
    stage.builds[0].outcome.set_result(Black())
    assert tick.result(20) == frame + 1 == images.frame()


def test_ticks_keep_their_order_and_share_one_build(stage, client):
    client.call("set_episode_settings", SYNCHRONOUS)
    images = stage.camera()
    ticks = []
    for count in range(1, 4):
        ticks.append(stage.later("tick_cue"))
        waiting(stage, count)
    stage.builds[0].outcome.set_result(Black())
    frames = [tick.result(20) for tick in ticks]
    assert frames == list(range(frames[0], frames[0] + 3)) == [images.frame() for _ in ticks]
    assert len(stage.builds) == 1


def test_asynchronous_time_goes_on_and_images_begin_when_they_can(stage, client):
    images = stage.camera()
    frame = stage.server.world.frame
    wait_for(lambda: stage.server.world.frame > frame + 3)
    built_at = stage.server.world.frame
    stage.builds[0].outcome.set_result(Black())
    assert images.frame() >= built_at
    assert len(stage.builds) == 1


def test_another_episode_ends_the_wait_and_the_build(stage, client):
    client.call("set_episode_settings", SYNCHRONOUS)
    stage.camera()
    tick = stage.later("tick_cue")
    waiting(stage, 1)
    client.call("load_new_episode", "B", True, 0)
    with pytest.raises(RuntimeError, match="another episode began before this tick"):
        tick.result(20)
    assert str(stage.builds[0].outcome.exception()) == "it was given up"
    client.call("set_episode_settings", SYNCHRONOUS)
    images = stage.camera()
    tick = stage.later("tick_cue")
    waiting(stage, 1)
    assert [build.town.name for build in stage.builds] == ["A", "B"]
    stage.builds[1].outcome.set_result(Black())
    assert tick.result(20) == images.frame()


def test_a_reload_keeps_the_build_that_is_under_way(stage, client):
    stage.camera()
    client.call("load_new_episode", "", True, 0)
    client.call("set_episode_settings", SYNCHRONOUS)
    images = stage.camera()
    tick = stage.later("tick_cue")
    waiting(stage, 1)
    stage.builds[0].outcome.set_result(Black())
    assert tick.result(20) == images.frame()
    assert len(stage.builds) == 1


@pytest.mark.parametrize("error", [ValueError("the roads have no end"), MemoryError("none left")])
def test_a_build_that_fails_answers_who_waits_and_is_tried_again(stage, client, error):
    client.call("set_episode_settings", SYNCHRONOUS)
    images = stage.camera()
    tick = stage.later("tick_cue")
    waiting(stage, 1)
    frame = stage.server.world.frame
    stage.builds[0].outcome.set_exception(error)
    with pytest.raises(RuntimeError, match=f"scenery of A cannot be built: {error}"):
        tick.result(20)
    assert client.call("version") == "0.9.16"
    assert stage.server.world.frame == frame
    again = stage.later("tick_cue")
    wait_for(lambda: len(stage.builds) == 2)
    stage.builds[1].outcome.set_result(Black())
    assert again.result(20) == frame + 1 == images.frame()


def test_a_failed_build_is_not_repeated_at_every_asynchronous_step(stage, client):
    stage.camera()
    stage.builds[0].outcome.set_exception(ValueError("the roads have no end"))
    frame = stage.server.world.frame
    wait_for(lambda: stage.server.world.frame > frame + 5)
    assert len(stage.builds) == 1


def test_loading_and_uploading_leave_the_lock_to_others(stage, client, monkeypatch):
    """Towns that take long to load or to check; the client that asks waits, nobody else."""
    go_on, entered = threading.Event(), threading.Semaphore(0)

    def slow(*_) -> Town:
        entered.release()
        go_on.wait(60)
        return Town("OpenDriveMap", "<x/>", ((0.0,) * 6,), "grid", 0)

    api = stage.server.rpc.methods["load_new_episode"].__self__
    monkeypatch.setattr(api, "towns", Towns(lambda: ["A"], slow, slow, stage.build))
    load, upload = (
        stage.later("load_new_episode", "C", True, 0),
        stage.later("copy_opendrive_to_file", "<OpenDRIVE/>", [0.0] * 4 + [False] * 3),
    )
    for _ in range(2):
        assert entered.acquire(timeout=20)
    assert client.call("version") == "0.9.16"
    assert client.call("get_map_info")[0] == "Carla/Maps/A"
    go_on.set()
    load.result(20)
    upload.result(20)


def test_scenery_of_towns_that_are_not_used_is_released(stage, client):
    client.call("set_episode_settings", SYNCHRONOUS)
    stage.camera()
    renderer = Black()
    gone = weakref.ref(renderer)
    stage.builds[0].outcome.set_result(renderer)
    client.call("tick_cue")
    del renderer
    stage.builds.clear()
    assert gone() is not None
    client.call("load_new_episode", "B", False, 0)
    wait_for(lambda: gc.collect() >= 0 and gone() is None)
