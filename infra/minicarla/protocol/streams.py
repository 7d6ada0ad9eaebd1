"""The streaming side: every subscriber of every stream has its own socket; one loop serves them all.

A server must not close the socket of a client that keeps up: it would reconnect in a hot loop. Sockets of destroyed
sensors stay open and silent until the client closes them or room is needed. A reader that does not read is closed,
because the messages that wait for it must be bounded; ticks never wait for another client's reader.
"""

from __future__ import annotations

import collections
import logging
import os
import selectors
import threading
import time
from typing import Any

from infra.minicarla.protocol.listening import Shortage, accept, listen
from infra.minicarla.protocol.refusal_log import RefusalLog
from infra.minicarla.protocol.subscribers import Parts, Subscriber
from infra.minicarla.protocol.wire import WORLD_STREAM

log = logging.getLogger(__name__)
refusals = RefusalLog(log)

MAX_SUBSCRIBERS = 512
MAX_WAITING_BYTES = 1 << 28
"""For all readers together; the one with the longest backlog is closed."""
MESSAGES_AHEAD = 4
SLOW_READER_S = 1.0
"""A client's tick waits for its own readers, while more than `MESSAGES_AHEAD` messages wait, but not longer."""
SUBSCRIBER_S = 1.0
"""Limit for a client's tick to wait for a connection that the client itself announced."""
OTHERS_SUBSCRIBER_S = 0.25
"""The same for connections that others announced."""
NO_OTHERS_S = 30.0
"""Time in which no tick waits for others after one did so in vain: many announcements must not slow ticks down."""
MAX_EXPECTED = 64
SWEEP_S = 0.5
SETTLE_S = 0.1
"""Time that a client has to read the states of an episode before it learns that the episode is over."""
RESUBSCRIBE_S = 3.0
"""Time that it has to subscribe to the new episode's states."""


class StreamServer:
    """Accepts subscribers and hands messages to them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.listener = listen(port)
        self.listener.setblocking(False)
        self.connections: set[Subscriber] = set()
        self.subscribers: dict[int, list[Subscriber]] = collections.defaultdict(list)
        self.expected: dict[int, collections.deque[tuple[float, object]]] = {}
        """Stream -> when it was announced, and by which client; a connection should follow."""
        self.others_after = 0.0
        """When ticks may wait for subscribers of other clients again."""
        self.changed = threading.Condition()
        self.published_at = self.silent_until = 0.0
        self.stopping = False
        self.awake, self.waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.to_watch: collections.deque[Subscriber] = collections.deque()

    # -- the loop ---------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Accept, read and send until `stop`."""
        with selectors.DefaultSelector() as self.selector:
            self.selector.register(self.listener, selectors.EVENT_READ)
            self.selector.register(self.awake, selectors.EVENT_READ)
            self.accepting, swept_at = True, time.monotonic()
            while not self.stopping:
                for key, events in self.selector.select(SWEEP_S):
                    try:
                        self.handle(key.fileobj, events)
                    except Exception:
                        log.exception("a connection to the streams failed")
                        if key.fileobj in self.connections:
                            key.fileobj.drop("it failed")  # the sweep closes it
                if time.monotonic() - swept_at > SWEEP_S:
                    swept_at = time.monotonic()
                    self.sweep(swept_at)

    def handle(self, ready: Any, events: int) -> None:
        """Serve one socket that is ready."""
        if ready is self.listener:
            self.admit()
        elif ready == self.awake:
            self.woken()
        elif ready in self.connections:  # it may have been removed a moment ago
            self.attend(ready, events)

    def stop(self) -> None:
        """End the loop and close the listener."""
        self.stopping = True
        self.wake()
        self.listener.close()

    def wake(self) -> None:
        try:
            os.write(self.waker, b"!")
        except BlockingIOError:
            return  # it is full: the loop will wake

    def woken(self) -> None:
        """Take over the connections that other threads could not finish sending to."""
        os.read(self.awake, 1 << 12)
        while self.to_watch:
            subscriber = self.to_watch.popleft()
            if subscriber not in self.connections:
                continue
            if subscriber.failure:
                self.remove(subscriber)
            else:
                self.selector.modify(subscriber, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def admit(self) -> None:
        """Accept one connection. Without room for it, wait until one is closed."""
        try:
            connection = accept(self.listener)
        except Shortage as shortage:
            refusals.write("connections", f"{shortage}: waiting until one is closed")
            self.accept_more(False)
            self.make_room()
            return
        except OSError:
            self.stopping = True
            return
        if connection is None:
            return
        if len(self.connections) >= MAX_SUBSCRIBERS and not self.make_room():
            refusals.write("connections", f"{MAX_SUBSCRIBERS} streams are read: close some of them first")
            connection.close()
            return
        try:
            subscriber = Subscriber(connection)
        except OSError as error:
            log.debug("a connection was gone as soon as it was accepted: %s", error)
            connection.close()
            return
        self.selector.register(subscriber, selectors.EVENT_READ)
        self.connections.add(subscriber)

    def accept_more(self, accepting: bool) -> None:
        """Listen to new connections again, or leave them in the queue."""
        if accepting and not self.accepting:
            self.selector.register(self.listener, selectors.EVENT_READ)
        elif self.accepting and not accepting:
            self.selector.unregister(self.listener)
        self.accepting = accepting

    def make_room(self) -> bool:
        """Close the oldest connection that names no stream, or one that is silent, or that no client announced."""

        def rank(subscriber: Subscriber) -> int:
            if subscriber.stream is None:
                return 0
            if subscriber not in self.subscribers.get(subscriber.stream, ()):
                return 1
            return 2 if subscriber.owner is None else 3

        with self.changed:
            found = min(self.connections, key=lambda each: (rank(each), each.since), default=None)
            if found is None or rank(found) == 3:
                return False
        found.drop("its place was needed")
        self.remove(found)
        return True

    def attend(self, subscriber: Subscriber, events: int) -> None:
        if events & selectors.EVENT_READ and not subscriber.failure and subscriber.read():
            self.add(subscriber)
        if events & selectors.EVENT_WRITE and not subscriber.failure and subscriber.flush():
            self.selector.modify(subscriber, selectors.EVENT_READ)
            with self.changed:
                self.changed.notify_all()
        if subscriber.failure:
            self.remove(subscriber)

    def sweep(self, now: float) -> None:
        """Close what is overdue or holds too much, and accept again after a shortage."""
        for subscriber in list(self.connections):
            if reason := subscriber.failure or subscriber.overdue(now):
                subscriber.drop(reason)
                self.remove(subscriber)
        while sum(each.waiting_bytes for each in self.connections) > MAX_WAITING_BYTES:
            longest = max(self.connections, key=lambda each: each.waiting_bytes)
            longest.drop(f"{longest.waiting_bytes} bytes wait for it, more than for any other reader")
            self.remove(longest)
        self.accept_more(True)

    def add(self, subscriber: Subscriber) -> None:
        """Begin to send a connection the stream that it has named."""
        stream = subscriber.stream
        assert stream is not None
        with self.changed:
            self.subscribers[stream].append(subscriber)
            if stream == WORLD_STREAM:
                self.silent_until = 0.0
            if announced := self.expected.get(stream):
                _, subscriber.owner = announced.popleft()
            self.changed.notify_all()

    def remove(self, subscriber: Subscriber) -> None:
        """Close a connection that was given up."""
        if subscriber.failure != "closed by the reader":
            refusals.write("a stream's reader", subscriber.failure)
        self.connections.discard(subscriber)
        self.selector.unregister(subscriber)
        subscriber.connection.close()
        with self.changed:
            readers = self.subscribers.get(subscriber.stream or 0, [])
            if subscriber in readers:
                readers.remove(subscriber)
            if not readers:
                self.subscribers.pop(subscriber.stream or 0, None)
            self.changed.notify_all()
        self.accept_more(True)

    # -- for the world ----------------------------------------------------------------------------------------------

    def expect(self, stream: int, client: object) -> None:
        """Note that a client was given a token: its connection will come."""
        with self.changed:
            announced = self.expected.setdefault(stream, collections.deque(maxlen=MAX_EXPECTED))
            announced.append((time.monotonic(), client))

    def await_readers(self, client: object) -> None:
        """Wait for the client's own readers, at most a second each: those it announced, and those that lag behind.

        The first image must not be lost, and a program that ticks faster than it reads is slowed down as by CARLA.
        """
        begun = time.monotonic()
        with self.changed:
            while self.awaited(client, begun) or (time.monotonic() < begun + SLOW_READER_S and self.lagging(client)):
                self.changed.wait(0.02)

    def awaited(self, client: object, begun: float) -> bool:
        """Tell whether a tick that `begun` must wait for an announced connection. Called with `changed` held."""
        now = time.monotonic()
        for stream, announced in list(self.expected.items()):
            while announced and now - announced[0][0] > SUBSCRIBER_S:
                announced.popleft()
            if not announced:
                del self.expected[stream]
        if any(who is client for announced in self.expected.values() for _, who in announced):
            return True
        if not self.expected or now < self.others_after:
            return False
        if now - begun < OTHERS_SUBSCRIBER_S:
            return True
        self.others_after = now + NO_OTHERS_S
        return False

    def lagging(self, client: object) -> bool:
        """Tell whether more than a few messages wait for one of the client's readers."""
        return any(
            reader.owner is client and reader.messages_waiting > MESSAGES_AHEAD
            for readers in self.subscribers.values()
            for reader in readers
        )

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
        """Send the message to every subscriber of the stream, without waiting for any."""
        with self.changed:
            readers = list(self.subscribers.get(stream, ()))
            if stream == WORLD_STREAM:
                self.published_at = time.monotonic()
        for reader in readers:
            if reader.send(parts, may_drop=may_drop):
                self.to_watch.append(reader)
                self.wake()

    def forget(self, stream: int) -> None:
        """Silence a destroyed sensor's stream."""
        with self.changed:
            self.subscribers.pop(stream, None)
            self.expected.pop(stream, None)
