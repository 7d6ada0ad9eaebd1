"""Hosts as network namespaces on one machine, each with an address of its own; root and iproute2 are needed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

can_make_hosts = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2"
)
SWITCH = "switch"


def ip(*words: str) -> None:
    """Run iproute2's command."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def network_hosts(prefix: str, count: int) -> Iterator[list[str]]:
    """Yield the addresses of `count` hosts that reach each other; a host's namespace is `prefix` and its address."""
    addresses = [f"10.77.0.{number}" for number in range(1, count + 1)]
    made = []
    try:
        for name in (SWITCH, *addresses):
            ip("netns", "add", prefix + name)
            made.append(prefix + name)
            ip("-n", prefix + name, "link", "set", "lo", "up")
        ip("-n", prefix + SWITCH, "link", "add", "bridge", "type", "bridge")
        ip("-n", prefix + SWITCH, "link", "set", "bridge", "up")
        for number, address in enumerate(addresses):
            host, port = prefix + address, f"port{number}"
            ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", prefix + SWITCH)
            ip("-n", prefix + SWITCH, "link", "set", port, "master", "bridge", "up")
            ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", host, "route", "add", "default", "dev", "eth0")  # Ray asks for the way out to find its address
        yield addresses
    finally:
        for name in made:
            ip("netns", "delete", name)
