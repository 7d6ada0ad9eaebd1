"""One reader of a stream: what it has not taken yet is kept within bounds, and nobody waits for it."""

from __future__ import annotations

import collections
import socket
import struct
import threading
import time

Parts = list[bytes | memoryview]

BACKLOG_BYTES = 1 << 26
BACKLOG_MESSAGES = 8
"""A backlog of more bytes and more messages than this ends a connection; two images may well be larger than 64 MiB."""
STALLED_S = 10.0
"""A reader that takes nothing for so long while something waits for it is closed."""
NAME_S = 5.0
"""A connection must name its stream within this time; CARLA's clients do so at once."""
SEND_BUFFER = 4 << 20
PARTS_A_CALL = 64


class Subscriber:
    """A connection to the streaming port. Only the server's loop closes it; any thread may `send`."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.connection = connection
        self.name = b""
        self.stream: int | None = None
        """None until the client has named it."""
        self.owner: object = None
        """The client's RPC connection, if the subscription was announced there."""
        self.since = self.progress_at = time.monotonic()
        self.lock = threading.Lock()
        self.waiting: collections.deque[memoryview] = collections.deque()
        self.waiting_bytes = 0
        self.watched = False
        """The loop was asked to go on sending."""
        self.failure = ""

    def fileno(self) -> int:
        return self.connection.fileno()

    @property
    def messages_waiting(self) -> int:
        return len(self.waiting) // 2  # a head and a body each

    def send(self, parts: Parts, *, may_drop: bool) -> bool:
        """Send what the socket takes and keep the rest; tell whether the loop must now be woken.

        With `may_drop` a message is left out while an older one waits.
        """
        with self.lock:
            if self.failure or (may_drop and self.waiting):
                return False
            if not self.waiting:
                self.progress_at = time.monotonic()
            views = [memoryview(b"".join(parts[:-1])), memoryview(parts[-1]).cast("B")]
            self.waiting.extend(views)
            self.waiting_bytes += sum(map(len, views))
            if not self.watched:
                self.push()
            if self.waiting_bytes > BACKLOG_BYTES and self.messages_waiting > BACKLOG_MESSAGES:
                self.fail(f"{self.waiting_bytes} bytes wait for a reader that is too slow")
            wake = bool(self.failure or self.waiting) and not self.watched
            self.watched = self.watched or wake
            return wake or bool(self.failure)

    def flush(self) -> bool:
        """Send on, in the loop; tell whether nothing waits any more."""
        with self.lock:
            self.push()
            if not self.waiting:
                self.watched = False
            return not self.waiting

    def push(self) -> None:
        """Send until the socket is full. Called with the lock held."""
        try:
            while self.waiting:
                sent = self.connection.sendmsg([self.waiting[k] for k in range(min(PARTS_A_CALL, len(self.waiting)))])
                self.progress_at = time.monotonic()
                self.waiting_bytes -= sent
                while self.waiting and sent >= len(self.waiting[0]):
                    sent -= len(self.waiting.popleft())
                if sent:
                    self.waiting[0] = self.waiting[0][sent:]
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(f"the reader is gone: {error}")

    def fail(self, reason: str) -> None:
        """Give the connection up and free what waits; the loop closes it. Called with the lock held."""
        self.failure = self.failure or reason
        self.waiting.clear()
        self.waiting_bytes = 0

    def drop(self, reason: str) -> None:
        with self.lock:
            self.fail(reason)

    def read(self) -> bool:
        """Read what came, in the loop: the four bytes that name the stream; tell whether it is named just now.

        A client sends nothing after them: anything else, or its end, gives the connection up.
        """
        try:
            data = self.connection.recv(4 - len(self.name) or 1)
        except BlockingIOError:
            return False
        except OSError as error:
            self.drop(f"the reader is gone: {error}")
            return False
        if not data or self.stream is not None:
            self.drop("the reader sent more than a stream's number" if data else "closed by the reader")
            return False
        self.name += data
        if len(self.name) < 4:
            return False
        (self.stream,) = struct.unpack("<I", self.name)
        return True

    def overdue(self, now: float) -> str:
        """Return why the connection must be closed at this time, or nothing."""
        if self.stream is None:
            return "no stream was named" if now - self.since > NAME_S else ""
        if self.waiting and now - self.progress_at > STALLED_S:
            return f"nothing was read for {STALLED_S:g} s"
        return ""
