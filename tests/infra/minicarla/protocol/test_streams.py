"""Readers of streams: the slow are waited for by their own client alone, the stuck are closed, the loop goes on."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import pytest

from infra.minicarla.protocol import streams, subscribers
from infra.minicarla.protocol.streams import StreamServer
from infra.minicarla.protocol.wire import message


@pytest.fixture
def server():
    served = StreamServer(0)
    served.port = served.listener.getsockname()[1]
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    yield served
    served.stop()
    thread.join(5)
    assert not thread.is_alive()


@contextlib.contextmanager
def reading(server: StreamServer, stream: int):
    """A connection that reads a stream, once the server knows it."""
    before = len(server.subscribers.get(stream, ()))
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.settimeout(None)  # else MSG_WAITALL does not wait
        connection.sendall(struct.pack("<I", stream))
        wait(lambda: len(server.subscribers.get(stream, ())) > before)
        yield connection


def wait(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def take(connection: socket.socket) -> bytes:
    (size,) = struct.unpack("<I", connection.recv(4, socket.MSG_WAITALL))
    return connection.recv(size, socket.MSG_WAITALL)


def test_a_reader_that_takes_nothing_is_closed_and_the_others_get_everything(server, monkeypatch):
    monkeypatch.setattr(subscribers, "STALLED_S", 0.3)
    monkeypatch.setattr(streams, "SWEEP_S", 0.1)
    with reading(server, 7), reading(server, 7) as good:
        for number in range(3):
            server.publish(7, message(bytes([number]) * 12_000_000), may_drop=False)
            assert take(good) == bytes([number]) * 12_000_000
        wait(lambda: len(server.connections) == 1)
        server.publish(7, message(b"after"), may_drop=False)
        assert take(good) == b"after"


def test_with_may_drop_only_whole_messages_are_left_out(server):
    with reading(server, 7) as slow:
        for number in range(20):
            server.publish(7, message(bytes([number]) * 6_000_000), may_drop=True)
        got = [take(slow)]
        server.publish(7, message(b"last"), may_drop=False)
        while got[-1] != b"last":
            got.append(take(slow))
        assert 2 <= len(got) < 20
        assert all(len(set(each)) == 1 and len(each) == 6_000_000 for each in got[:-1])


def test_a_client_waits_for_its_own_readers_and_for_no_others(server):
    mine, theirs = object(), object()
    server.expect(7, mine)
    with reading(server, 7):
        for number in range(6):
            server.publish(7, message(bytes([number]) * 12_000_000), may_drop=False)
        begun = time.monotonic()
        server.await_readers(theirs)
        assert time.monotonic() - begun < 0.5
        server.await_readers(mine)
        assert time.monotonic() - begun > 0.8


def test_a_subscription_that_was_announced_is_waited_for(server):
    client = object()
    server.expect(7, client)

    def come_late():
        time.sleep(0.2)
        with reading(server, 7):
            time.sleep(0.5)

    thread = threading.Thread(target=come_late)
    thread.start()
    server.await_readers(client)
    assert server.has_readers(7)
    thread.join()


def test_announcements_that_are_not_kept_hold_up_one_tick_and_no_more(server):
    mine, theirs = object(), object()
    server.expect(7, theirs)
    begun = time.monotonic()
    server.await_readers(mine)
    assert time.monotonic() - begun > 0.2
    for _ in range(10):
        server.expect(7, object())
        server.await_readers(mine)
    assert time.monotonic() - begun < 0.6


def test_a_fault_of_one_connection_does_not_end_the_loop(server, monkeypatch, caplog):
    real, faults = subscribers.Subscriber.read, [ZeroDivisionError("x")]

    def read(self):
        if faults:
            raise faults.pop()
        return real(self)

    monkeypatch.setattr(subscribers.Subscriber, "read", read)
    monkeypatch.setattr(streams, "SWEEP_S", 0.1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as bad:
        bad.sendall(b"\x07\x00\x00\x00")
        wait(lambda: "a connection to the streams failed" in caplog.text and not server.connections)
    with reading(server, 7) as good:
        server.publish(7, message(b"hello"), may_drop=False)
        assert take(good) == b"hello"
