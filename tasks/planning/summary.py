"""What a plan holds and what it lacks, in numbers, before anything is recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.planning.preset import PlanPreset
from tasks.planning.site_order import SiteOrder

MOST_REPEATS = 50
"""That are looked at for advice."""


@dataclass(frozen=True)
class CellSummary:
    """A town's recordings of one trajectory type; scenes are counted, not their variants."""

    town: str
    trajectory_type: str
    wanted: int
    """Its share; with shares by capacity its even share, which other towns make up for where it is not possible."""
    planned: int
    spares: int
    order: SiteOrder

    @property
    def possible(self) -> int:
        """How many its sites give, as far as they were tried: all sites of a cell that has less than it should."""
        return self.planned + self.spares + self.order.room

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON."""
        return {
            "town": self.town,
            "trajectory_type": self.trajectory_type,
            "sites": self.order.count,
            "wanted": self.wanted,
            "possible": self.possible,
            "planned": self.planned,
            "spares": self.spares,
        }


def groups_of(preset: PlanPreset, cells: Sequence[CellSummary]) -> list[list[CellSummary]]:
    """Return the cells that share a number of wanted scenes: a type in all towns with shares by capacity, else one."""
    if preset.shares == "capacity":
        return [[cell for cell in cells if cell.trajectory_type == name] for name in preset.trajectory_types]
    return [[cell] for cell in cells]


def towns_of(group: Sequence[CellSummary]) -> str:
    return group[0].town if len(group) == 1 else "all towns"


def lack_of(group: Sequence[CellSummary]) -> int:
    """Return how many scenes a type lacks in the towns of a group together."""
    return sum(cell.wanted - cell.planned for cell in group)


def lacking(preset: PlanPreset, cells: Sequence[CellSummary]) -> dict[str, dict[str, int]]:
    """Return, by town ("all towns" with shares by capacity) and trajectory type, how many scenes lack; zeros are left
    out."""
    shortages: dict[str, dict[str, int]] = {}
    for group in groups_of(preset, cells):
        if lack_of(group) > 0:
            shortages.setdefault(towns_of(group), {})[group[0].trajectory_type] = lack_of(group)
    return shortages


def lacking_spares(preset: PlanPreset, cells: Sequence[CellSummary]) -> dict[str, dict[str, int]]:
    """Return, as `lacking` does, how many spare scenes had no site left."""
    shortages: dict[str, dict[str, int]] = {}
    for group in groups_of(preset, cells):
        missing = sum(math.ceil(preset.spare_share * cell.planned) - cell.spares for cell in group)
        if missing > 0:
            shortages.setdefault(towns_of(group), {})[group[0].trajectory_type] = missing
    return shortages


def shortfalls(preset: PlanPreset, cells: Sequence[CellSummary]) -> list[str]:
    """Return a sentence per share that the plan cannot reach, with what would help, and one on the whole; none if it
    reaches its number."""
    short = [group for group in groups_of(preset, cells) if lack_of(group) > 0]
    if not short:
        return []
    lines = []
    for group in short:
        wanted, possible = sum(cell.wanted for cell in group), sum(cell.planned for cell in group)
        lines.append(
            f"{towns_of(group)}, {group[0].trajectory_type}: {wanted} scenes wanted, {possible} possible. "
            f"{advice(preset, group)}"
        )
    wanted, planned = sum(cell.wanted for cell in cells), sum(cell.planned for cell in cells)
    clips = len(preset.windows)
    return [
        *lines,
        f"The plan holds {planned} of {wanted} scenes, that is {clips * planned} of {clips * wanted} clip pairs.",
    ]


def advice(preset: PlanPreset, group: Sequence[CellSummary]) -> str:
    """Return what would give a type its wanted number."""
    wanted = sum(cell.wanted for cell in group)
    for repeats in range(preset.repeats + 1, MOST_REPEATS + 1):
        if sum(cell.order.room_with(repeats) for cell in group) >= wanted:
            return f"With repeats = {repeats} they would be there."
    limit = preset.recordings_per_junction
    if limit and any(cell.order.room for cell in group):
        return f"No number of repeats gives them with recordings_per_junction = {limit}."
    if preset.shares == "equal":
        return 'No number of repeats gives them here: shares = "capacity" deals them to the other towns.'
    return "No number of repeats gives them: add towns that have such places."


def table(preset: PlanPreset, cells: Sequence[CellSummary]) -> str:
    """Return a Markdown table: per town and trajectory type the planned scenes of those that are possible."""
    types = preset.trajectory_types
    rows = [["town", *(name.replace("_", " ") for name in types), "together"]]
    for town in preset.towns:
        mine = {cell.trajectory_type: cell for cell in cells if cell.town == town}
        shown = [f"{mine[name].planned} of {mine[name].possible}" if name in mine else "" for name in types]
        rows.append([town, *shown, str(sum(cell.planned for cell in mine.values()))])
    of_type = [sum(cell.planned for cell in cells if cell.trajectory_type == name) for name in types]
    rows.append(["together", *map(str, of_type), str(sum(of_type))])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
