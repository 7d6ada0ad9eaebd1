"""The streaming side: every subscriber of every stream has its own socket and sender thread.

A server must never close a subscriber's socket: the client would reconnect in a hot loop. Sockets of destroyed sensors
stay open and silent until the client closes them.
"""

from __future__ import annotations

import collections
import queue
import socket
import struct
import threading
import time

from infra.minicarla.protocol.rpc import listen
from infra.minicarla.protocol.wire import WORLD_STREAM

Parts = list[bytes | memoryview]
QUEUE_LIMIT = 4
SLOW_READER_S = 1.0
SUBSCRIBER_S = 1.0
SETTLE_S = 0.1
"""What a client gets to work through the states of an episode before it learns that the episode is over."""
RESUBSCRIBE_S = 3.0
"""What it gets to subscribe to those of the new one."""


def send_all(connection: socket.socket, parts: Parts) -> None:
    """Send the parts without joining them."""
    views = [memoryview(part).cast("B") for part in parts]
    while views:
        sent = connection.sendmsg(views)
        while views and sent >= len(views[0]):
            sent -= len(views.pop(0))
        if sent:
            views[0] = views[0][sent:]


class Subscriber:
    """One reader of one stream."""

    def __init__(self, connection: socket.socket, stream: int) -> None:
        self.connection, self.stream = connection, stream
        self.queue: queue.Queue[Parts | None] = queue.Queue(QUEUE_LIMIT)
        self.closed = threading.Event()
        threading.Thread(target=self.work, daemon=True).start()

    def send(self, parts: Parts, *, may_drop: bool) -> None:
        """Queue a message. Asynchronous mode drops for a slow reader; synchronous mode waits, but not for ever."""
        if self.closed.is_set():
            return
        try:
            self.queue.put(parts, block=not may_drop, timeout=SLOW_READER_S)
        except queue.Full:
            if not may_drop:
                self.close()

    def work(self) -> None:
        while (parts := self.queue.get()) is not None and not self.closed.is_set():
            try:
                send_all(self.connection, parts)
            except OSError:
                self.closed.set()

    def close(self) -> None:
        """Stop sending; the socket itself is closed by the thread that reads from it."""
        self.closed.set()
        try:
            self.queue.put_nowait(None)
        except queue.Full:
            while not self.queue.empty():
                self.queue.get_nowait()
            self.queue.put_nowait(None)


class StreamServer:
    """Accepts subscribers and hands messages to them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.listener = listen(port)
        self.subscribers: dict[int, list[Subscriber]] = collections.defaultdict(list)
        self.expected: dict[int, collections.deque[float]] = collections.defaultdict(collections.deque)
        self.changed = threading.Condition()
        self.published_at = self.silent_until = 0.0

    def serve(self) -> None:
        """Accept connections until the listener closes."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.attend, args=(connection,), daemon=True).start()

    def attend(self, connection: socket.socket) -> None:
        """Read the four bytes that name the stream, then wait for the client to hang up."""
        with connection:
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
                name = connection.recv(4, socket.MSG_WAITALL)
                if len(name) < 4:
                    return
                subscriber = Subscriber(connection, struct.unpack("<I", name)[0])
                self.add(subscriber)
                try:
                    connection.recv(1)
                finally:
                    self.remove(subscriber)
            except OSError:
                return

    def add(self, subscriber: Subscriber) -> None:
        with self.changed:
            self.subscribers[subscriber.stream].append(subscriber)
            if subscriber.stream == WORLD_STREAM:
                self.silent_until = 0.0
            if self.expected[subscriber.stream]:
                self.expected[subscriber.stream].popleft()
            self.changed.notify_all()

    def remove(self, subscriber: Subscriber) -> None:
        subscriber.close()
        with self.changed:
            if subscriber in self.subscribers.get(subscriber.stream, []):
                self.subscribers[subscriber.stream].remove(subscriber)

    def expect(self, stream: int) -> None:
        """Note that a client was given a token: its connection will come."""
        with self.changed:
            self.expected[stream].append(time.monotonic())

    def await_expected(self) -> None:
        """Wait, at most a second each, for announced subscribers: their first image must not be lost."""
        with self.changed:
            while True:
                now = time.monotonic()
                for times in self.expected.values():
                    while times and now - times[0] > SUBSCRIBER_S:
                        times.popleft()
                if not any(self.expected.values()):
                    return
                self.changed.wait(0.02)

    def fall_silent(self) -> None:
        """At a new episode: let the old one's last state arrive, send no other until a client subscribes anew.

        A client that handles a state while it exchanges its episode unsubscribes from two threads at once, and crashes
        (std::bad_weak_ptr, `close: Bad file descriptor`, or a segmentation fault).
        """
        time.sleep(max(0.0, self.published_at + SETTLE_S - time.monotonic()))
        self.silent_until = time.monotonic() + RESUBSCRIBE_S

    def silent(self) -> bool:
        return time.monotonic() < self.silent_until

    def has_readers(self, stream: int) -> bool:
        with self.changed:
            return bool(self.subscribers.get(stream))

    def publish(self, stream: int, parts: Parts, *, may_drop: bool) -> None:
        """Send the message to every subscriber of the stream."""
        with self.changed:
            readers = list(self.subscribers.get(stream, ()))
            if stream == WORLD_STREAM:
                self.published_at = time.monotonic()
        for reader in readers:
            reader.send(parts, may_drop=may_drop)

    def forget(self, stream: int) -> None:
        """Silence a destroyed sensor's stream."""
        with self.changed:
            self.subscribers.pop(stream, None)
