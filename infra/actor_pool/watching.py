"""What a pool tells of its actors: the state of each, and how each one ended. Nothing here changes what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LOSSES = ("died", "lost with their node", "failed", "past their deadline", "did not start", "not placed")
"""Kinds of ends that are failures, in words that go with the actors' name."""


@dataclass(frozen=True)
class Usage:
    """What an actor holds in memory, with all processes that it started; None: not measured."""

    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True)
class ActorEnd:
    """How an actor ended, or that one could not be placed or started."""

    actor: str
    """The name of its slot; the actors that follow each other in a slot share it."""
    node: str
    """The host that it was on, with the node's id where two nodes share a host; empty while it had none."""
    kind: str
    """One of LOSSES, "recycled by ..." as `Recycling.reason` says, "replaced after a fault", or "unusable"."""
    reason: str
    """A sentence."""


@dataclass(frozen=True)
class ActorState:
    """What a slot of the pool is doing."""

    name: str
    node: str
    """As in ActorEnd."""
    phase: str
    """A value of `Phase`."""
    phase_s: float
    """How long it has been doing that."""
    item: str
    """The item in hand, empty where there is none."""
    items_done: int
    """By all actors of the slot."""
    restarts: int
    """Actors that were made after the first one."""
    usage: Usage
    """After its last item."""
    why: str
    """Why the last actor of the slot ended, in a sentence; empty where none has."""


class PoolWatcher:
    """Is told what happens in a pool, on the pool's thread. By default it does not care."""

    def actor_ended(self, end: ActorEnd) -> None:
        """Take note of how an actor ended."""

    def look(self, states: Callable[[], list[ActorState]]) -> None:
        """Called at each turn of the pool, many times a second or every ten seconds. `states()` asks Ray."""


def host_names(nodes: list[dict]) -> dict[str, str]:
    """Return a short name by node's id for what `ray.nodes()` returns: its host, and a bit of its id where several
    nodes share one."""
    hosts = [node.get("NodeManagerHostname") or node["NodeID"] for node in nodes]
    return {
        node["NodeID"]: host if hosts.count(host) == 1 else f"{host}/{node['NodeID'][:6]}"
        for node, host in zip(nodes, hosts, strict=True)
    }
