"""`python -m tests.infra.closed_ray`: starts a local Ray and ends with 0 when it is closed to others."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import psutil

from infra.ray_cluster import ray_cluster, temporary_folder


def listening(process: psutil.Process) -> set[str]:
    """Return the addresses at which a process or a descendant listens."""
    return {
        connection.laddr.ip
        for one in [process, *process.children(recursive=True)]
        for connection in one.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


def handler(number, frame) -> None:
    raise AssertionError


def main() -> None:
    signal.signal(signal.SIGTERM, handler)
    with ray_cluster(num_cpus=1) as ray:
        assert signal.getsignal(signal.SIGTERM) is handler
        assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
        addresses = listening(psutil.Process())
        assert addresses
        assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}, addresses
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert stat.S_IMODE(temporary_folder().parent.stat().st_mode) == 0o700
        secret = token.read_text().strip()
        for process in psutil.Process().children(recursive=True):
            assert secret not in " ".join(process.cmdline())
    assert signal.getsignal(signal.SIGTERM) is handler


if __name__ == "__main__":
    main()
