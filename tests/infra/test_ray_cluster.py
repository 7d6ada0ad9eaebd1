"""Ray leaves Prefect's SIGTERM handler in place."""

from __future__ import annotations

import signal
import socket

import pytest

from infra.ray_cluster import RayClusterError, ray_cluster


def test_the_sigterm_handler_survives_ray():
    def handler(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with ray_cluster(num_cpus=1) as ray:
            assert signal.getsignal(signal.SIGTERM) is handler
            assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_cluster_that_does_not_listen_is_told_at_once(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(RayClusterError, match=f"no Ray listens at {address}"), ray_cluster():
            pass


def test_an_address_without_a_cluster_is_one_sentence(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "not an address")
    with pytest.raises(RayClusterError, match="RAY_ADDRESS"), ray_cluster(num_cpus=1):
        pass
