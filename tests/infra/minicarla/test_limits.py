"""What one client takes from a server is bounded, and the others' ticks go on."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import statistics
import struct
import time

import msgpack
import pytest

from tests.infra.minicarla.served import Rpc, Served, at, description


@pytest.fixture
def server(synchronous) -> Served:
    return synchronous


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def subscribe(server: Served, stream: int) -> socket.socket:
    connection = connect(server.port + 1)
    connection.sendall(struct.pack("<I", stream))
    return connection


def ended(connection: socket.socket) -> bool:
    """Wait for the server to close a connection that sends nothing more."""
    try:
        while connection.recv(1 << 20):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def ticks_ms(rpc: Rpc, count: int = 20) -> list[float]:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        rpc.call("tick_cue")
        times.append(1e3 * (time.perf_counter() - begun))
    return times


def camera(rpc: Rpc, width: int, height: int) -> int:
    """A camera's stream."""
    given = description("sensor.camera.rgb", image_size_x=str(width), image_size_y=str(height))
    token = rpc.call("spawn_actor", given, at())[5]
    return struct.unpack("<I", token[:4])[0]


def test_without_descriptors_the_server_waits_and_serves_again(server, honest):
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    held = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (held + 6, limits[1]))
    try:
        with contextlib.ExitStack() as crowd:
            for _ in range(30):
                crowd.enter_context(connect(server.port))
                crowd.enter_context(connect(server.port + 1))
            time.sleep(0.5)
            before = server.cpu_s()
            begun = time.monotonic()
            while time.monotonic() - begun < 1.0:
                honest.call("tick_cue")
                time.sleep(0.05)
            assert server.cpu_s() - before < 0.5, "it waits without spinning"
        with Rpc(server.port) as late:
            assert late.call("version") == "0.9.16"
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)


def test_silent_connections_give_way_to_new_ones(server, honest):
    with contextlib.ExitStack() as crowd:
        for _ in range(600):
            crowd.enter_context(connect(server.port))
        with Rpc(server.port) as late:
            assert late.call("version") == "0.9.16"
        honest.call("tick_cue")
        assert server.connections() < 350


def test_silent_streams_give_way_to_new_ones_and_unnamed_ones_end(server, honest):
    with contextlib.ExitStack() as crowd:
        for number in range(300):
            crowd.enter_context(connect(server.port + 1))
            crowd.enter_context(subscribe(server, 1_000_000 + number))
        state = crowd.enter_context(subscribe(server, 1))
        state.settimeout(0.1)
        deadline, size = time.monotonic() + 20, b""
        while not size:
            assert time.monotonic() < deadline
            honest.call("tick_cue")
            with contextlib.suppress(TimeoutError):
                size = state.recv(4)
        assert len(size) == 4
        assert server.connections() < 600


def test_unfinished_messages_hold_little_memory(server, honest):
    before = server.memory_mb()
    head = b"\x94\x00\x01" + msgpack.packb("copy_opendrive_to_file") + b"\x92\x91\xc2\xdb"
    with contextlib.ExitStack() as crowd:
        for promised in [200_000_000] * 4 + [30_000_000] * 11:  # more than one message may, or all together
            connection = crowd.enter_context(connect(server.port))
            with contextlib.suppress(OSError):
                connection.sendall(head + struct.pack(">I", promised) + b"x" * min(promised, 29_000_000))
        assert max(ticks_ms(honest, 5)) < 2_000
        assert server.memory_mb() - before < 450
    deadline = time.monotonic() + 10
    while server.memory_mb() - before > 150:
        assert time.monotonic() < deadline, "the memory was not given back"
        time.sleep(0.05)


@pytest.mark.parametrize("data", [b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x91" * 1_000, b"\x81\xc0\xc0"])
def test_a_request_that_cannot_be_read_is_told_why(server, honest, data):
    with Rpc(server.port) as rpc:
        rpc.send(b"\x94\x00\x07" + msgpack.packb("get_map_info") + b"\x92\x91\xc2" + data)
        _, number, error, result = rpc.receive()
        assert (number, error) == (7, None)
        assert "the request cannot be read" in result[0][1][0]
        with pytest.raises(ConnectionError):
            rpc.receive()


def test_readers_that_never_read_are_closed_and_nobody_waits_for_them(server, honest):
    """A client of raw messages has no reader of its own: what lags is somebody else's."""
    alone = statistics.median(ticks_ms(honest))
    streams = [camera(honest, 800, 600) for _ in range(2)]
    before = server.memory_mb()
    with contextlib.ExitStack() as crowd:
        readers = [crowd.enter_context(subscribe(server, streams[k % 2])) for k in range(20)]
        time.sleep(0.2)
        times = ticks_ms(honest, 80)  # 150 MB for each
        assert statistics.median(times) < 20 * alone + 100
        assert max(times) < 1_000
        assert server.memory_mb() - before < 500
        assert all(map(ended, readers))


def test_a_client_that_reads_slowly_gets_every_image(server, honest):
    """Its own ticks wait for it, as CARLA's do."""
    stream = camera(honest, 400, 300)
    honest.call("get_sensor_token", stream)
    with subscribe(server, stream) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        first = honest.call("tick_cue")
        for _ in range(60):
            honest.send(msgpack.packb([0, 0, "tick_cue", [[False]]]))
        frames, file = [], reader.makefile("rb")
        while len(frames) < 61:
            (size,) = struct.unpack("<I", file.read(4))
            frames.append(struct.unpack_from("<QQ", file.read(size))[1])
            time.sleep(0.01)
        assert frames == list(range(first, first + 61))
        for _ in range(60):
            honest.receive()


def test_a_token_that_somebody_else_asked_for_delays_no_tick(server, honest):
    with Rpc(server.port) as other:
        for _ in range(100):
            other.call("get_sensor_token", 1)
        assert max(ticks_ms(honest, 5)) < 500


def test_a_stream_that_is_not_there_has_no_token(honest):
    with pytest.raises(RuntimeError, match="there is no stream 4000"):
        honest.call("get_sensor_token", 4000)


def test_requests_are_answered_while_another_client_reads_no_answers(server, honest):
    with connect(server.port) as rude:
        rude.setblocking(False)
        request = msgpack.packb([0, 0, "get_actor_definitions", [[False]]])
        with contextlib.suppress(BlockingIOError):
            for _ in range(20_000):
                rude.sendall(request)
        assert max(ticks_ms(honest, 5)) < 1_000


def test_actors_and_what_they_are_attached_to_are_bounded(server):
    with Rpc(server.port) as rpc:
        chain = [rpc.call("spawn_actor", description("sensor.other.collision"), at())[0]]
        with pytest.raises(RuntimeError, match="attached to a chain of"):
            for _ in range(100):
                given = description("sensor.other.collision")
                chain.append(rpc.call("spawn_actor_with_parent", given, at(), chain[-1], 0, "")[0])
        assert 5 < len(chain) < 30
        wide = description("sensor.camera.rgb", image_size_x="4096", image_size_y="4096")
        cameras = []
        with pytest.raises(RuntimeError, match="all cameras together would have"):
            for _ in range(100):
                cameras.append(rpc.call("spawn_actor", wide, at())[0])
        spawn = [[0, [description("sensor.other.collision"), at(), [False], 0, "", []]]]
        answers = rpc.call("apply_batch", [spawn] * 2_500, False)
        spawned = [answer[0][1] for answer in answers if answer[0][0] == 1]
        assert 1_000 < len(spawned) <= 2_000
        assert "destroy some" in answers[-1][0][1][0]
        assert max(ticks_ms(rpc, 5)) < 1_000
        destroy = [[[1, [actor]]] for actor in (*spawned, *cameras, chain[0])]
        assert all(answer[0][0] == 1 for answer in rpc.call("apply_batch", destroy, False))
        with pytest.raises(RuntimeError, match="unable to find actor"):
            rpc.call("get_actor_bounding_box", chain[-1])
