"""Ray leaves Prefect's SIGTERM handler in place."""

from __future__ import annotations

import signal

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


def test_an_address_without_a_cluster_is_one_sentence(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "not an address")
    with pytest.raises(RayClusterError, match="RAY_ADDRESS"), ray_cluster(num_cpus=1):
        pass
