"""A Ray cluster of several raylets on this machine. Use it in a process of its own: Ray keeps to its first token."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.ray_cluster import secure_local_ray, temporary_folder

ROOT = Path(__file__).resolve().parent.parent
STORE_BYTES = 100 * 1024**2
MISSED = "The current node timed out during startup"
ATTEMPTS = 3
"""On a busy machine a raylet may miss Ray's own deadline for its start."""


def run_on_cluster(module: str, *given: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a module that starts a cluster in a process of its own; return what it wrote, once the cluster started.

    Skips the test where no cluster starts: that says nothing of what is tested.
    """
    environment = {**os.environ, "SHAREVERSE_HOME": str(home)}
    environment.pop("RAY_ADDRESS", None)
    for _ in range(ATTEMPTS):
        done = subprocess.run(
            [sys.executable, "-m", module, *given], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=280,
        )  # fmt: skip
        if MISSED not in done.stderr:
            assert done.returncode == 0, done.stdout + done.stderr
            return done
    pytest.skip(f"Ray missed its own deadline for a start {ATTEMPTS} times: this machine is too busy")


@contextlib.contextmanager
def cluster_without_cpus() -> Iterator[Any]:
    """Yield a cluster whose head has no CPU, closed to others, and let RAY_ADDRESS name it."""
    secure_local_ray()
    os.environ["RAY_TMPDIR"] = str(temporary_folder())
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0, object_store_memory=STORE_BYTES, include_dashboard=False)
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any, *, gpus: int = 0, **resources: float) -> Any:
    """Start a node of two CPUs with these resources; return it once the cluster knows it."""
    return cluster.add_node(num_cpus=2, num_gpus=gpus, object_store_memory=STORE_BYTES, resources=resources)


def lose_node(cluster: Any, node: Any) -> None:
    """Kill a node's raylet, and with it the actors there."""
    cluster.remove_node(node, allow_graceful=False)
