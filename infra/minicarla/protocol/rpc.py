"""msgpack-rpc as CARLA speaks it: one thread a connection, requests of a connection in order."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

import msgpack

log = logging.getLogger(__name__)


class RpcError(RuntimeError):
    """A request that cannot be served; its text reaches the client as a RuntimeError."""


def method(function: Callable | None = None, *, void: bool = False, raw: bool = False) -> Callable:
    """Mark a function as an RPC. `void`: CARLA's Response<void>; `raw`: the result goes out unwrapped."""

    def mark(target: Callable) -> Callable:
        target.rpc_form = "void" if void else "raw" if raw else "value"  # type: ignore[attr-defined]
        return target

    return mark if function is None else mark(function)


def wrap(form: str, value: Any) -> Any:
    """Wrap a result as the client declares it: Response<T> is [[1, value]], Response<void> is [[false]]."""
    return {"value": [[1, value]], "void": [[False]], "raw": value}[form]


def wrap_error(form: str, text: str) -> Any:
    """Wrap an error text so that the client raises RuntimeError(text)."""
    return [[True, [text]]] if form == "void" else [[0, [text]]]


def listen(port: int) -> socket.socket:
    """Return a listening socket on 127.0.0.1; RpcError names the port when it is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise RpcError(f"Port {port} is taken ({error.strerror}): choose another with -carla-rpc-port=N.") from error
    listener.listen(64)
    return listener


class RpcServer:
    """Serves the marked methods of `api` under `lock`.

    The methods are found by name: `api.load_new_episode` answers the RPC `load_new_episode`.
    """

    def __init__(self, listener: socket.socket, api: Any, lock: threading.RLock) -> None:
        self.listener = listener
        self.methods = {
            name: getattr(api, name) for name in dir(type(api)) if hasattr(getattr(type(api), name), "rpc_form")
        }
        self.lock = lock

    def serve(self) -> None:
        """Accept connections until the listener closes."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        unpacker = msgpack.Unpacker(
            raw=False, max_buffer_size=1 << 28, unicode_errors="surrogateescape", strict_map_key=False
        )
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    unpacker.feed(data)
                    for request in unpacker:
                        connection.sendall(self.answer(request))
            except (OSError, ValueError, TypeError, IndexError, KeyError, msgpack.UnpackException) as error:
                log.info("connection closed: %r", error)

    def answer(self, request: Any) -> bytes:
        """Return the packed response; raise ValueError for what is no request."""
        if not isinstance(request, list) or len(request) != 4 or request[0] != 0 or not isinstance(request[3], list):
            raise ValueError("not a msgpack-rpc request")
        _, number, name, (_, *arguments) = request
        target = self.methods.get(name)
        error, result = None, None
        if target is None:
            error = f"the embedded CARLA has no function {name!r}"
            log.warning(error)
        else:
            form = target.rpc_form
            try:
                with self.lock:
                    result = wrap(form, target(*arguments))
            except RpcError as reason:
                log.info("%s refused: %s", name, reason)  # many calls of the client do not wait for an answer
                result = wrap_error(form, str(reason))
            except (TypeError, ValueError, KeyError, IndexError, RuntimeError, OSError) as reason:
                log.exception("%s failed", name)
                result = wrap_error(form, f"{name}: {type(reason).__name__}: {reason}")
        return msgpack.packb([1, number, error, result], use_bin_type=True, unicode_errors="surrogateescape")
