"""The order in which a town's sites of one trajectory type are used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tasks.planning.sites import Site


class SiteOrder(Protocol):
    """Hands out sites, each `repeats` times at most."""

    count: int
    """Of the sites."""

    @property
    def room(self) -> int:
        """How many more times sites can be handed out, if all of them can be driven."""

    def room_with(self, repeats: int) -> int:
        """Return how often sites could be handed out from the start with so many repeats, without those dropped."""

    def take(self) -> tuple[Site, int] | None:
        """Return a site and how often it was used before; None when none is left."""

    def drop(self) -> None:
        """Give up the site that was taken last: no drivable pair was found there."""


class RandomOrder:
    """Sites in random order, each `repeats` times in a row."""

    def __init__(self, sites: list[Site], order: np.random.Generator, repeats: int) -> None:
        self.sites, self.repeats, self.count = sites, repeats, len(sites)
        self.unused = order.permutation(len(sites)).tolist()
        self.dropped = 0
        self.current: Site | None = None
        self.uses = 0
        """Of the current site."""

    @property
    def room(self) -> int:
        of_current = 0 if self.current is None else self.repeats - self.uses
        return of_current + self.repeats * len(self.unused)

    def room_with(self, repeats: int) -> int:
        return repeats * (self.count - self.dropped)

    def take(self) -> tuple[Site, int] | None:
        if self.current is None or self.uses >= self.repeats:
            if not self.unused:
                return None
            self.current, self.uses = self.sites[self.unused.pop(0)], 0
        self.uses += 1
        return self.current, self.uses - 1

    def drop(self) -> None:
        self.current, self.dropped = None, self.dropped + 1


@dataclass
class Place:
    """A site, or what sites are part of: an approach, a junction, a town."""

    limit: float
    """How often it may be used."""
    site: Site | None = None
    parts: Sequence[Place] = ()
    uses: int = 0
    is_closed: bool = False
    room: int = 0
    """How many more times it can be used."""

    def __post_init__(self) -> None:
        self.count_room()

    def count_room(self) -> None:
        own = 0 if self.is_closed else self.limit - self.uses
        self.room = int(own if self.site else min(own, sum(part.room for part in self.parts)))

    def room_with(self, repeats: int) -> int:
        """Return how often it could be used from the start if every site were used up to `repeats` times."""
        if self.site:
            return 0 if self.is_closed else repeats
        return int(min(self.limit, sum(part.room_with(repeats) for part in self.parts)))


class BalancedOrder:
    """Sites by turns: of junctions, approaches to them, and sites there, the one that was used least comes next.

    So no junction is used more often than another one that could be used too. Between junctions all sites take turns.
    """

    def __init__(self, sites: Sequence[Site], rng: np.random.Generator, repeats: int, per_junction: int) -> None:
        self.count = len(sites)
        self.town = self.grouped(sites, rng, repeats, per_junction)
        self.taken: list[Place] = []
        """From the town to the site that was taken last."""

    @staticmethod
    def grouped(sites: Sequence[Site], rng: np.random.Generator, repeats: int, per_junction: int) -> Place:
        """Return the town with its junctions, approaches and sites, in random order. 0 per junction: no limit."""
        tree: dict[str, dict[str, list[Place]]] = {}
        for index in rng.permutation(len(sites)):
            site = sites[index]
            tree.setdefault(site.junction, {}).setdefault(site.approaches, []).append(Place(repeats, site))
        junctions = [
            Place(
                per_junction if per_junction and name else math.inf,
                parts=[Place(math.inf, parts=places) for places in approaches.values()],
            )
            for name, approaches in tree.items()
        ]
        return Place(math.inf, parts=junctions)

    @property
    def room(self) -> int:
        return self.town.room

    def room_with(self, repeats: int) -> int:
        return self.town.room_with(repeats)

    def take(self) -> tuple[Site, int] | None:
        if not self.town.room:
            return None
        self.taken = [self.town]
        while parts := self.taken[-1].parts:
            self.taken.append(min((part for part in parts if part.room), key=lambda part: part.uses))
        site, uses = self.taken[-1].site, self.taken[-1].uses
        assert site is not None
        self.add_uses(1)
        return site, uses

    def drop(self) -> None:
        self.taken[-1].is_closed = True
        self.add_uses(-1)

    def add_uses(self, uses: int) -> None:
        """Count uses of the place that was taken last, and of all it is part of."""
        for place in reversed(self.taken):
            place.uses += uses
            place.count_room()
