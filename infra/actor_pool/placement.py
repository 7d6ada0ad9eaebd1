"""What an actor needs of a node, in Ray's resources, and what the nodes have of it."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NODES_WAIT_S = 10.0
"""How long a Ray that has just started may take to report what its nodes have."""


@dataclass(frozen=True)
class Needs:
    """What one actor occupies on its node. A GPU may be shared: 0.25 is a quarter of one."""

    cpus: float = 1
    gpus: float = 0
    carla: int = 0
    """Places for CARLA servers, which nodes declare: `ray start --resources '{"carla": 4}'`."""

    def resources(self) -> dict[str, float]:
        """Return the amounts above zero by Ray's names."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "carla": self.carla}
        return {name: amount for name, amount in amounts.items() if amount}

    def options(self) -> dict[str, Any]:
        """Return the options of `ray.remote`: the actors spread over the nodes, and answer while they work."""
        own = {"carla": self.carla} if self.carla else {}
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": own,
                "max_concurrency": 2, "scheduling_strategy": "SPREAD"}  # fmt: skip

    def room(self, nodes: Sequence[dict[str, float]]) -> int:
        """Return how many such actors empty nodes hold."""
        return sum(
            min(math.floor(node.get(name, 0) / amount + 1e-6) for name, amount in self.resources().items())
            for node in nodes
        )

    def lacking(self, ray: Any) -> str:
        """Return, for a message, what an actor needs and what Ray has of it."""
        needed, nodes, free = self.resources(), alive_nodes(ray), ray.available_resources()
        amounts = " and ".join(f"{amount:g} {name}" for name, amount in needed.items())
        have = ", ".join(
            f"{sum(node.get(name, 0) for node in nodes):g} {name} ({free.get(name, 0):g} free)" for name in needed
        )
        together = "" if self.room(nodes) else ", and no node alone holds it"
        return f"it needs {amounts}, and Ray's nodes have {have}{together}"


def alive_nodes(ray: Any) -> list[dict[str, float]]:
    """Return what each living node has in total, by Ray's names of resources."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def await_nodes(ray: Any, cpus: float) -> list[dict[str, float]]:
    """Return `alive_nodes` once they have `cpus` CPUs, or after NODES_WAIT_S: a new Ray reports them with a delay."""
    deadline, never_set = time.monotonic() + NODES_WAIT_S, threading.Event()
    while True:
        nodes = alive_nodes(ray)
        if sum(node.get("CPU", 0) for node in nodes) >= max(cpus, 1) or time.monotonic() >= deadline:
            return nodes
        never_set.wait(0.2)


def node_id() -> str:
    """Return Ray's id of the node that this actor runs on."""
    import ray

    return ray.get_runtime_context().get_node_id()


def assigned_cores() -> int:
    """Return this actor's share of its node's cores, at least one.

    A CPU of Ray's may stand for several cores: a local Ray has only as many CPUs as actors are asked for.
    """
    import ray

    (node,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == node_id())
    share = ray.get_runtime_context().get_assigned_resources().get("CPU", 1) / node.get("CPU", 1)
    return max(1, int((os.cpu_count() or 1) * share + 1e-6))
