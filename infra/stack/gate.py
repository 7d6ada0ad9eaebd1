"""Decides which requests reach a local web server: those to its own names, from its own pages, and of its own user.

A host name that is not the server's comes from DNS rebinding, an origin that is not its own from a foreign web page.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost")
ESTABLISHED = "01"
WEBSOCKET_DENIAL = "websocket.http.response"
"""ASGI's extension by which a refused websocket gets an answer with a body."""


def own_origins(port: int) -> list[str]:
    """Return the origins of a server's own pages, as a browser on this machine names them."""
    return [f"http://{name}:{port}" for name in LOOPBACK]


def kernel_address(address: tuple[str, int], mapped: bool) -> str:
    """Return an IPv4 address as /proc/net/tcp writes it, or, `mapped` into IPv6, as /proc/net/tcp6 does."""
    (number,) = struct.unpack("=I", socket.inet_aton(address[0]))
    prefix = "0" * 16 + f"{struct.unpack('=I', bytes((0, 0, 255, 255)))[0]:08X}" if mapped else ""
    return f"{prefix}{number:08X}:{address[1]:04X}"


def peer_uid(peer: tuple[str, int], own: tuple[str, int]) -> int | None:
    """Return the user id that owns the other end of a connection on this machine; None when that cannot be told.

    Only established sockets that a process holds count: the kernel reports all others as root's.
    """
    for table, mapped in (("/proc/net/tcp", False), ("/proc/net/tcp6", True)):
        wanted = [kernel_address(peer, mapped), kernel_address(own, mapped), ESTABLISHED]
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else ():
            fields = line.split()
            if fields[1:4] == wanted and fields[9] != "0":
                return int(fields[7])
    return None


class Gate:
    """ASGI middleware that answers 403, with the reason, to requests that may not pass."""

    def __init__(self, app: App, port: int, more_hosts: Iterable[str] = (), own_user_only: bool = False) -> None:
        """`more_hosts`: host names to accept beside the loopback's. `own_user_only`: refuse other users' processes."""
        self.app = app
        self.hosts = {*LOOPBACK, *more_hosts}
        self.origins = set(own_origins(port))
        self.own_user_only = own_user_only

    def refusal(self, scope: Scope) -> str | None:
        """Return why a request may not pass, None when it may."""
        headers = [(name, value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0].partition(":")[0].lower() not in self.hosts:
            return "This server has another name: a request must name 127.0.0.1 or localhost as its host."
        if any(name == b"origin" and value.lower() not in self.origins for name, value in headers):
            return "This server answers its own pages only, not those of another origin."
        if self.own_user_only and peer_uid(scope["client"], scope["server"]) != os.geteuid():
            return "This server answers processes of the user who started it only."
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self.refusal(scope) if scope["type"] in ("http", "websocket") else None
        if reason is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket" and WEBSOCKET_DENIAL not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": reason})  # before accept: 403, no sentence
        else:
            kind = WEBSOCKET_DENIAL if scope["type"] == "websocket" else "http.response"
            body = reason.encode() + b"\n"
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
            await send({"type": f"{kind}.start", "status": 403, "headers": headers})
            await send({"type": f"{kind}.body", "body": body})
