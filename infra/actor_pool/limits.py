"""How often and how long a pool tries an actor and an item."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """The fault policy of a pool. A failure is charged to what caused it, the actor or the item."""

    start_s: float
    """An actor that has not answered `start` after so long failed to start."""
    attempts: int = 3
    """Attempts at an item that fails while its actor works."""
    actors_lost: int = 8
    """After so many actors have failed with an item in hand, the item is to blame."""
    recycle_every: float = math.inf
    """Items after which an actor is replaced."""
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
