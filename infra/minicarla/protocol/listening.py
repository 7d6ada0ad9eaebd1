"""Listening sockets, and accept loops that outlive a shortage of descriptors or memory."""

from __future__ import annotations

import errno
import logging
import socket

from infra.minicarla.protocol.errors import RpcError

log = logging.getLogger(__name__)

BACKLOG = 128
SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
CLOSED = (errno.EBADF, errno.EINVAL)


class Shortage(Exception):
    """The system has no descriptor or memory for another connection: wait until one is free."""


def listen(port: int) -> socket.socket:
    """Return a listening socket on 127.0.0.1; RpcError names the port when it is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise RpcError(f"Port {port} is taken ({error.strerror}): choose another with -carla-rpc-port=N.") from error
    listener.listen(BACKLOG)
    return listener


def accept(listener: socket.socket) -> socket.socket | None:
    """Return the next connection, or None when it was gone already. Shortage when there is no room for it.

    OSError only when the listener is closed.
    """
    try:
        connection, _ = listener.accept()
    except OSError as error:
        if error.errno in CLOSED:
            raise
        if error.errno in SHORTAGE:
            raise Shortage(error.strerror) from error
        log.info("a connection was gone before it was accepted: %s", error)
        return None
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        connection.close()
        log.info("a connection was gone as soon as it was accepted: %s", error)
        return None
    return connection
