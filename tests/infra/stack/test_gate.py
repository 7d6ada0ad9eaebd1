"""The gate in front of the local web servers, over real connections."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from infra.stack.gate import Gate, own_origins, peer_uid

PORT = 4200


async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def passes(kind: str = "http", *, headers=(("host", f"127.0.0.1:{PORT}"),), **options) -> bool:
    """Tell whether the gate lets a request through."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers]}
    asyncio.run(Gate(application, PORT, **options)(scope, None, send))
    assert sent[0].get("status") in (200, 403) or sent[0]["type"] == "websocket.close"
    return sent[0].get("status") == 200


@pytest.mark.parametrize("host", ["127.0.0.1:4200", "localhost:4200", "LOCALHOST", "127.0.0.1:8080"])
def test_own_names_pass(host):
    assert passes(headers=[("host", host)])


FOREIGN = ("evil.example", "evil.example:4200", "127.0.0.1.evil.example", "", "[::1]:4200", "prefect", "127.0.0.1\xff")


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_foreign_names_do_not(host, kind):
    assert not passes(kind, headers=[("host", host)])


def test_a_request_without_a_name_or_with_two_does_not():
    assert not passes(headers=[])
    assert not passes(headers=[("host", "127.0.0.1"), ("host", "127.0.0.1")])


def test_a_name_may_be_added():
    assert passes(headers=[("host", "prefect:4200")], more_hosts=["prefect"])


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_pages_of_another_origin_do_not_pass(kind):
    for origin in own_origins(PORT):
        assert passes(headers=[("host", "127.0.0.1"), ("origin", origin)])
    for origin in (
        "http://evil.example",
        "null",
        "",
        "http://127.0.0.1:4201",
        "https://127.0.0.1:4200",
        "http://127.0.0.1",
    ):
        assert not passes(kind, headers=[("host", "127.0.0.1"), ("origin", origin)])


def connect(server: socket.socket, family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
    client = socket.socket(family)
    client.connect(("::ffff:127.0.0.1" if family == socket.AF_INET6 else "127.0.0.1", server.getsockname()[1]))
    accepted, _ = server.accept()
    return client, accepted


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_owner_of_the_other_end_is_known(server, family):
    client, accepted = connect(server, family)
    assert peer_uid(accepted.getpeername(), accepted.getsockname()) == os.geteuid()
    client.close()  # now the kernel reports it as root's
    assert peer_uid(accepted.getpeername(), accepted.getsockname()) is None
    accepted.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_users_connection_is_known(server):
    script = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534); client = socket.socket(); "
        f"client.connect(('127.0.0.1', {server.getsockname()[1]})); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    accepted, address = server.accept()
    assert peer_uid(address, accepted.getsockname()) == 65534
    other.communicate(timeout=10)
    accepted.close()
