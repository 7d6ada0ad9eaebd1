"""How often and how long a pool tries an actor and an item."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from infra.actor_pool.watching import Usage


@dataclass(frozen=True)
class Recycling:
    """When an actor that works is replaced all the same, because what it started leaks. Looked at after each item."""

    items: float = math.inf
    age_s: float = math.inf
    memory_bytes: float = math.inf
    gpu_memory_bytes: float = math.inf

    def reason(self, items: int, age_s: float, usage: Usage) -> tuple[str, str] | None:
        """Return why an actor of this age is due, as a kind and the end of a sentence; None while it is not.

        What could not be measured is no reason.
        """
        memory, gpu_memory = usage.memory_bytes or 0, usage.gpu_memory_bytes or 0
        if items >= self.items:
            return "recycled by count", f"it has done {items} items"
        if age_s >= self.age_s:
            return "recycled by age", f"it is {age_s / 60:.0f} minutes old, the limit is {self.age_s / 60:.0f}"
        if memory >= self.memory_bytes:
            return "recycled by memory", f"it holds {in_gib(memory)}, the limit is {in_gib(self.memory_bytes)}"
        if gpu_memory >= self.gpu_memory_bytes:
            held, limit = in_gib(gpu_memory), in_gib(self.gpu_memory_bytes)
            return "recycled by video memory", f"it holds {held} of video memory, the limit is {limit}"
        return None


def in_gib(amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB"


@dataclass(frozen=True)
class Limits:
    """The fault policy of a pool. A failure is charged to what caused it, the actor or the item."""

    start_s: float
    """An actor that has not answered `start` after so long failed to start."""
    attempts: int = 3
    """Attempts at an item that fails while its actor works."""
    actors_lost: int = 8
    """After so many actors have failed with an item in hand, the item is to blame."""
    recycling: Recycling = field(default_factory=Recycling)
    run_s: float = math.inf
    """The pool's deadline: after so long it hands out nothing more, and puts back what is in hand."""
    stagger_s: float = 0.0
    """Between the first starts of the actors."""
    report_s: float | None = None
    """How often a working actor is asked for its reports; None: never. A report puts off the item's deadline."""
    died: str = "{name} died."
    """The sentence for an actor whose process ended."""


class ItemTimeout:
    """How long an item may take: by its size and the slowest rate measured so far, unless a limit was given."""

    def __init__(
        self,
        size_of: Callable[[Any], float],
        *,
        setup_s: float,
        unknown_rate_s: float,
        slowest_rate_factor: float = 10.0,
        limit_s: float | None = None,
    ) -> None:
        """`size_of(item)` counts what takes the time. `setup_s` comes on top. `unknown_rate_s` is allowed per unit of
        size while no rate is known; after that `slowest_rate_factor` times the slowest."""
        self.size_of, self.setup_s, self.unknown_rate_s = size_of, setup_s, unknown_rate_s
        self.slowest_rate_factor, self.limit_s = slowest_rate_factor, limit_s
        self.slowest_s = 0.0
        """Seconds per unit of size of the slowest item."""

    def seconds_for(self, item: Any) -> float:
        rate_s = self.slowest_rate_factor * self.slowest_s or self.unknown_rate_s
        return self.limit_s or self.setup_s + self.size_of(item) * rate_s

    def learn(self, item: Any, seconds: float) -> None:
        self.slowest_s = max(self.slowest_s, seconds / self.size_of(item))
