"""How many recordings of each trajectory type a town gets, and what comes of it: a plan's cells and its shortfalls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tasks.planning.errors import TooFewSites
from tasks.planning.preset import PlanPreset
from tasks.planning.rows import seed_of_text
from tasks.planning.town import TownPlan

Scene = list[dict[str, Any]]
"""The rows of a scene: its base and, where there is one, its variant."""


def level(wanted: int, rooms: Sequence[int], held: Sequence[int]) -> list[int]:
    """Deal `wanted` to places that hold `held` already and have room for `rooms` more, so that they end up level.

    A place gets less than another one only if it is full or holds more. The sum is less than `wanted` only if all are
    full. What cannot be divided goes to the first.
    """
    room, have = np.array(rooms, dtype=int), np.array(held, dtype=int)
    wanted = min(wanted, int(room.sum()))
    low, high = 0, int((have + room).max(initial=0))
    while low < high:  # the highest level that takes no more than is wanted
        middle = (low + high + 1) // 2
        if np.clip(middle - have, 0, room).sum() <= wanted:
            low = middle
        else:
            high = middle - 1
    dealt = np.clip(low - have, 0, room)
    may_rise = np.flatnonzero((have + dealt == low) & (dealt < room))
    dealt[may_rise[: wanted - int(dealt.sum())]] += 1
    return [int(count) for count in dealt]


class Cell:
    """A town's recordings of one trajectory type."""

    def __init__(self, town_plan: TownPlan, trajectory_type: str) -> None:
        self.town_plan, self.trajectory_type = town_plan, trajectory_type
        self.order = town_plan.sites_of(trajectory_type)
        self.planned: list[Scene] = []
        self.spares: list[Scene] = []

    @property
    def town(self) -> str:
        return self.town_plan.town

    @property
    def split(self) -> str:
        return self.town_plan.preset.split_of(self.town)

    def weather_of(self, number: int) -> str:
        """Return the weather of the cell's `number`-th scene: all weathers come in turn, each time in another order, so
        that no junction has always the same."""
        preset = self.town_plan.preset
        turn, place = divmod(number, len(preset.weathers))
        key = [preset.seed, seed_of_text(self.town), seed_of_text(self.trajectory_type), seed_of_text("weathers"), turn]
        return preset.weathers[int(np.random.default_rng(key).permutation(len(preset.weathers))[place])]

    def draw(self, count: int, scenes: list[Scene]) -> None:
        """Append `count` scenes to `scenes`, the cell's planned ones or its spares; fewer where sites run out."""
        for _ in range(count):
            number = len(self.planned) + len(self.spares)
            try:
                scenes.append(self.town_plan.scene_rows(self.trajectory_type, self.weather_of(number), number))
            except TooFewSites:
                return


def planned_of(cell: Cell) -> list[Scene]:
    return cell.planned


def spares_of(cell: Cell) -> list[Scene]:
    return cell.spares


def deal(cells: Sequence[Cell], wanted: int, scenes_of: Callable[[Cell], list[Scene]]) -> None:
    """Draw scenes until the cells hold `wanted` together, as level as their sites allow, or no site is left.

    Sites turn out not to be drivable only when they are drawn; what they leave is dealt to the other cells.
    """
    while (left := wanted - sum(len(scenes_of(cell)) for cell in cells)) > 0:
        counts = level(left, [cell.order.room for cell in cells], [len(scenes_of(cell)) for cell in cells])
        if not any(counts):
            return
        for cell, count in zip(cells, counts, strict=True):
            cell.draw(count, scenes_of(cell))


def deal_spares(cells: Sequence[Cell], spare_share: float) -> None:
    """Draw the spares of a type: each town's own first, then what lacks in other towns of the same split."""
    shares = [math.ceil(spare_share * len(cell.planned)) for cell in cells]
    for cell, share in zip(cells, shares, strict=True):
        cell.draw(share, cell.spares)
    for split in dict.fromkeys(cell.split for cell in cells):
        mine = [(cell, share) for cell, share in zip(cells, shares, strict=True) if cell.split == split]
        deal([cell for cell, _ in mine], sum(share for _, share in mine), spares_of)


def wanted_by_type(preset: PlanPreset) -> dict[str, int]:
    """Return how many recordings of each trajectory type all towns are to have together, with shares by capacity."""
    total, types = preset.recordings_per_town * len(preset.towns), preset.trajectory_types
    return {name: total // len(types) + (index < total % len(types)) for index, name in enumerate(types)}
