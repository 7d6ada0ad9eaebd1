"""msgpack-rpc as CARLA speaks it: one thread per connection, requests of a connection in order.

A bad request is answered with a sentence and harms nobody else. A connection whose bytes are no requests is closed;
so is one that leaves a message unfinished for `MESSAGE_S` or an answer unread for `ANSWER_S`.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from infra.minicarla.protocol.arguments import Signature, abbreviated
from infra.minicarla.protocol.errors import RpcError
from infra.minicarla.protocol.listening import Shortage, accept
from infra.minicarla.protocol.messages import Budget, MessageError, MessageReader
from infra.minicarla.protocol.refusal_log import RefusalLog

log = logging.getLogger(__name__)
refusals = RefusalLog(log)

MAX_CONNECTIONS = 256
MESSAGE_S = 30.0
ANSWER_S = 30.0
WAKE_S = 5.0
IDLE_S = 300.0
"""A client that has been served may be silent for so long before a new one may take its place."""
ROOM_S = 0.2
VOID_ELSEWHERE = frozenset(
    ("apply_color_texture_to_objects", "apply_float_color_texture_to_objects", "set_ignored_vehicles")
)
"""Functions of 0.9.16 that are not served and whose answer the client declares Response<void>."""

_serving = threading.local()


def caller() -> Any:
    """Return what stands for the connection whose request this thread serves, None outside of requests."""
    return getattr(_serving, "connection", None)


def method(function: Callable | None = None, *, void: bool = False, raw: bool = False, before: str = "") -> Callable:
    """Mark a function as an RPC. `void`: CARLA's Response<void>; `raw`: the result goes out unwrapped.

    `before` names a method that is called first without the lock: what the caller waits for and others must not.
    """

    def mark(target: Callable) -> Callable:
        target.rpc_form = "void" if void else "raw" if raw else "value"  # type: ignore[attr-defined]
        target.rpc_before = before  # type: ignore[attr-defined]
        return target

    return mark if function is None else mark(function)


def wrap(form: str, value: Any) -> Any:
    """Wrap a result as the client declares it: Response<T> is [[1, value]], Response<void> is [[false]]."""
    return {"value": [[1, value]], "void": [[False]], "raw": value}[form]


def wrap_error(form: str, text: str) -> Any:
    """Wrap an error text so that the client raises RuntimeError(text); `raw` is a batch's list of answers."""
    return {"value": [[0, [text]]], "void": [[True, [text]]], "raw": [[[0, [text]]]]}[form]


class Connection:
    """One client's connection."""

    def __init__(self, connection: socket.socket, budget: Budget) -> None:
        self.socket, self.reader = connection, MessageReader(budget)
        self.served, self.busy = 0, False
        self.active_at = self.begun_at = time.monotonic()
        for option, seconds in ((socket.SO_RCVTIMEO, WAKE_S), (socket.SO_SNDTIMEO, ANSWER_S)):
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", int(seconds), 0))

    def receive(self) -> bytes:
        """Return the next bytes, none at the end. MessageError when a message stays unfinished for too long."""
        while True:
            if self.reader.unfinished and time.monotonic() - self.begun_at > MESSAGE_S:
                raise MessageError(f"a message was not finished within {MESSAGE_S:g} s")
            try:
                return self.socket.recv(1 << 16)
            except BlockingIOError:
                continue

    def may_go(self, now: float) -> bool:
        """Tell whether a new connection may take this one's place."""
        return not self.busy and (not self.served or now - self.active_at > IDLE_S)

    def end(self) -> None:
        """Make the thread that reads from it close it."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("a connection was closed already: %s", error)


class RpcServer:
    """Serves the marked methods of `api` under `lock`.

    The methods are found by name: `api.load_new_episode` answers the RPC `load_new_episode`. `absent` holds sentences
    for functions that are not served.
    """

    def __init__(
        self, listener: socket.socket, api: Any, lock: threading.RLock, absent: Mapping[str, str] | None = None
    ) -> None:
        self.listener, self.api, self.lock, self.absent = listener, api, lock, absent or {}
        self.methods = {
            name: getattr(api, name) for name in dir(type(api)) if hasattr(getattr(type(api), name), "rpc_form")
        }
        self.signatures = {name: Signature(target) for name, target in self.methods.items()}
        self.budget = Budget()
        self.connections: set[Connection] = set()
        self.room = threading.Condition()

    # -- connections ------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Accept connections until the listener closes."""
        while True:
            try:
                connection = accept(self.listener)
            except Shortage as shortage:
                refusals.write("connections", f"{shortage}: waiting until one is closed")
                with self.room:
                    self.make_room()
                    self.room.wait(ROOM_S)
            except OSError:
                return
            else:
                if connection is not None:
                    self.admit(connection)

    def stop(self) -> None:
        """Close the listener; `serve` returns."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def admit(self, accepted: socket.socket) -> None:
        """Serve a connection in a thread of its own, or close it when there are too many that are in use."""
        with self.room:
            if len(self.connections) >= MAX_CONNECTIONS and not self.make_room():
                refusals.write("connections", f"{MAX_CONNECTIONS} are in use: close some of them first")
                accepted.close()
                return
            try:
                connection = Connection(accepted, self.budget)
                threading.Thread(target=self.converse, args=(connection,), daemon=True).start()
            except (OSError, RuntimeError) as error:  # gone already; no more threads
                refusals.write("connections", str(error))
                accepted.close()
            else:
                self.connections.add(connection)

    def make_room(self) -> bool:
        """End the connection that has been silent longest, those that never made a request first."""
        now = time.monotonic()
        idle = [connection for connection in self.connections if connection.may_go(now)]
        if not idle:
            return False
        longest = min(idle, key=lambda connection: (connection.served > 0, connection.active_at))
        self.connections.discard(longest)
        longest.end()
        return True

    def converse(self, connection: Connection) -> None:
        _serving.connection = connection
        with connection.socket:
            try:
                while data := connection.receive():
                    if not connection.reader.unfinished:
                        connection.begun_at = time.monotonic()
                    connection.reader.feed(data)
                    for request in connection.reader.messages():
                        connection.busy = True
                        connection.socket.sendall(self.answer(request))
                        connection.busy = False
                        connection.served += 1
                        connection.active_at = connection.begun_at = time.monotonic()
            except MessageError as error:
                self.dismiss(connection, str(error))
            except OSError as error:
                log.debug("connection closed: %s", error)
            finally:
                connection.reader.close()
        with self.room:
            self.connections.discard(connection)
            self.room.notify_all()

    def dismiss(self, connection: Connection, reason: str) -> None:
        """End a connection that cannot be read any further; a request that had begun is told why."""
        refusals.write("messages", reason)
        opening = connection.reader.opening()
        connection.reader.close()
        try:
            if opening is not None:
                connection.socket.sendall(self.refuse(*opening, f"the request cannot be read: {reason}"))
            connection.socket.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + WAKE_S  # unread bytes would make the system withdraw the answer
            while time.monotonic() < deadline and connection.socket.recv(1 << 16):
                pass
        except OSError as error:
            log.debug("a dismissed connection was gone: %s", error)

    # -- requests ---------------------------------------------------------------------------------------------------

    def answer(self, request: Any) -> bytes:
        """Return the packed response; raise MessageError for what is no request."""
        if not isinstance(request, list) or len(request) != 4 or request[0] != 0:
            raise MessageError(f"{abbreviated(request)} is no msgpack-rpc request")
        _, number, name, given = request
        if not isinstance(number, int) or not isinstance(name, str) or not isinstance(given, list) or not given:
            raise MessageError(f"{abbreviated(request)} is no request: a client sends [0, number, name, [meta, ...]]")
        target = self.methods.get(name)
        if target is None:
            sentence = self.absent.get(name, f"the embedded CARLA has no function {abbreviated(name)}")
            refusals.write("functions", sentence)
            return self.refuse(number, name, sentence)
        try:
            arguments = self.signatures[name].check(given[1:])
            if target.rpc_before:
                getattr(self.api, target.rpc_before)()
            with self.lock:
                return packed(number, wrap(target.rpc_form, target(*arguments)))
        except RpcError as reason:
            refusals.write(name, str(reason))  # many calls of the client do not wait for an answer
            return self.refuse(number, name, str(reason))
        except Exception as reason:
            log.exception("%s failed", name)
            return self.refuse(number, name, f"{name} failed: {type(reason).__name__}: {reason}")

    def refuse(self, number: int, name: str, sentence: str) -> bytes:
        """Return the packed response that raises RuntimeError(sentence) in the client."""
        target = self.methods.get(name)
        form = target.rpc_form if target is not None else "void" if name in VOID_ELSEWHERE else "value"
        return packed(number, wrap_error(form, sentence))


def packed(number: int, result: Any) -> bytes:
    return msgpack.packb([1, number, None, result], use_bin_type=True, unicode_errors="surrogateescape")
