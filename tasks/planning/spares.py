"""Spare recordings: planned beside the quota, recorded only in place of what is lost for good.

Lost are recordings that a quality gate rejected and those that failed run after run. A spare scene stands in for a lost
one of its town and type, in the plan's order: equal losses give equal data sets. Spares lie in a table of their own, so
that a plan of which nothing is lost is the same with and without them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.planning.rows import PlannedRecording, read_plan

SPARES_FILE = "spares.parquet"

Row = Mapping[str, Any]
"""Of a plan, with at least recording_id, scene_id, variant, town and trajectory_type."""
Cell = tuple[str, str]
"""Town and trajectory type."""


def read_spares(dataset_dir: Path) -> list[PlannedRecording]:
    """Return the plan's spare rows; none for a plan without. A link to nothing is a damaged file, not none."""
    path = dataset_dir / SPARES_FILE
    return read_plan(path) if os.path.lexists(path) else []


def cell_of(row: Row) -> Cell:
    return row["town"], row["trajectory_type"]


def losses(plan: Iterable[Row], lost: Collection[str]) -> Counter[Cell]:
    """Count the scenes that are lost, by town and type. A lost second trajectory is not one: its scene is there."""
    return Counter(cell_of(row) for row in plan if row["variant"] == "base" and row["recording_id"] in lost)


def stand_ins(plan: Iterable[Row], spares: Iterable[Row], lost: Collection[str]) -> list[str]:
    """Return the ids of the spare recordings that take the place of lost ones, in the plan's order.

    `lost`: ids of planned and spare recordings. A spare scene whose base is lost is passed over.
    """
    spares = list(spares)
    open_places = losses(plan, lost)
    scenes: set[str] = set()
    for row in spares:
        if row["variant"] == "base" and row["recording_id"] not in lost and open_places[cell_of(row)] > 0:
            open_places[cell_of(row)] -= 1
            scenes.add(row["scene_id"])
    return [row["recording_id"] for row in spares if row["scene_id"] in scenes and row["recording_id"] not in lost]


def not_made_up(plan: Iterable[Row], spares: Iterable[Row], lost: Collection[str]) -> dict[Cell, int]:
    """Return how many lost scenes of a town and type have no spare to stand in for them."""
    plan, spares = list(plan), list(spares)
    chosen = set(stand_ins(plan, spares, lost))
    filled = losses(spares, chosen)
    return {cell: count - filled[cell] for cell, count in losses(plan, lost).items() if count > filled[cell]}
