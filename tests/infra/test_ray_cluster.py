"""A local Ray is closed to others, starts at the second attempt, and leaves Prefect's SIGTERM handler in place."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra import ray_cluster as module
from infra.ray_cluster import RayClusterError, ray_cluster, temporary_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path / "home"))
    for name in ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is put back
        monkeypatch.delenv(name)


def test_a_local_ray_is_closed_and_the_sigterm_handler_survives_it():
    """In a process of its own: one that used Ray before keeps to the token that it read then."""
    command = [sys.executable, "-m", "tests.infra.closed_ray"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


class StartUp:
    """Stands in for the module `ray`: its first `failures` starts time out as Ray's do."""

    __file__ = module.__file__

    def __init__(self, failures: int) -> None:
        self.failures, self.starts, self.util = failures, 0, self

    def init(self, **options):
        self.starts += 1
        if self.starts <= self.failures:
            raise Exception("The current node timed out during startup.\nThis could happen")

    def get_node_ip_address(self):
        return "127.0.0.1"

    def shutdown(self):
        pass


def test_a_start_that_takes_too_long_is_tried_once_more():
    ray = StartUp(failures=1)
    module.start_local(ray, 1)
    assert ray.starts == 2
    ray = StartUp(failures=2)
    with pytest.raises(RayClusterError, match=r"tried 2 times \(The current node timed out during startup\. T"):
        module.start_local(ray, 1)
    assert ray.starts == 2


def test_a_ray_that_listens_elsewhere_is_not_used(monkeypatch):
    ray = StartUp(failures=0)
    monkeypatch.setattr(ray, "get_node_ip_address", lambda: "10.0.0.7")
    with pytest.raises(RayClusterError, match=r"listens on 10\.0\.0\.7"):
        module.start_local(ray, 1)


@pytest.mark.parametrize("name", ["x" * 60, "no/such/folder"])
def test_a_temporary_folder_that_ray_cannot_use_is_one_sentence(tmp_path, monkeypatch, name):
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: f"/tmp/{name}")
    with pytest.raises(RayClusterError, match="TMPDIR"):
        temporary_folder()


def test_a_folder_that_somebody_else_made_first_is_not_entered(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_FOLDER_BYTES", 1000)
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"shareverse-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RayClusterError, match="not a folder of yours"):
        temporary_folder()


def test_a_cluster_that_does_not_listen_is_told_at_once(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(RayClusterError, match=f"no Ray listens at {address}"), ray_cluster():
            pass


@pytest.mark.parametrize("address", ["not an address", "host:99999", "h\u0000st:1", "ray://:1", "no-host.invalid:1"])
def test_an_address_without_a_cluster_is_one_sentence(monkeypatch, address):
    monkeypatch.setattr(os, "environ", {**os.environ, "RAY_ADDRESS": address})
    with pytest.raises(RayClusterError, match="RAY_ADDRESS"), ray_cluster(num_cpus=1):
        pass
