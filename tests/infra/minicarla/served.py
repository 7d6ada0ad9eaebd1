"""A server process for tests, and a client that speaks bare msgpack-rpc to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack

ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    """A port whose successor is free too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 1))
                return port


class Served:
    """A server process with a renderer that draws the camera's pose, its port, and its log."""

    def __init__(self, log: Path | None = None) -> None:
        self.port, self.log = free_port(), log
        command = [sys.executable, str(Path(__file__).with_name("pose_server.py")), str(self.port)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with contextlib.ExitStack() as files:
            errors = files.enter_context(log.open("wb")) if log else None
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def connections(self) -> int:
        """Sockets the server holds open."""
        files = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return sum(os.readlink(file).startswith("socket:") for file in files if file.is_symlink())

    def memory_mb(self) -> float:
        """Resident memory of the server."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu_s(self) -> float:
        """Processor time the server has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


class Rpc:
    """A connection that sends what it is told and reads the answers."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape", strict_map_key=False)
        self.numbers = itertools.count(1)

    def __enter__(self) -> Rpc:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> Any:
        """The next answer; ConnectionError when the server closes."""
        while True:
            for answer in self.unpacker:
                return answer
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("closed by the server")
            self.unpacker.feed(data)

    def result(self, name: str, *arguments: Any) -> Any:
        """What the server answers to a call, as on the wire."""
        self.send(msgpack.packb([0, next(self.numbers), name, [[False], *arguments]], unicode_errors="surrogateescape"))
        _, _, error, result = self.receive()
        assert error is None
        return result

    def call(self, name: str, *arguments: Any) -> Any:
        """The value that a call answers; RuntimeError with the sentence when it is refused."""
        result = self.result(name, *arguments)
        sentence = refusal(result)
        if sentence is not None:
            raise RuntimeError(sentence)
        return result if name == "apply_batch" else result[0][1:] and result[0][1]


def refusal(result: Any) -> str | None:
    """The sentence in CARLA's form of an error (for a batch, of its first command), None for a success."""
    (inner, *_) = result or [[False]]
    if isinstance(inner[0], list):
        inner = inner[0]
    if inner[0] is True or (type(inner[0]) is int and inner[0] == 0):
        return inner[1][0]
    return None


def at(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> list:
    """A Transform on the wire."""
    return [[x, y, z], [0.0, 0.0, 0.0]]


def description(blueprint: str, **attributes: str) -> list:
    """An ActorDescription on the wire; every attribute is said to be a string."""
    return [1, blueprint, [[name, 4, value] for name, value in attributes.items()]]
