"""A Ray cluster of several raylets on this machine. Use it in a process of its own: Ray keeps to its first token."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from infra.ray_cluster import secure_local_ray, temporary_folder

STORE_BYTES = 100 * 1024**2


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
