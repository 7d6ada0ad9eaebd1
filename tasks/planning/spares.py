"""Spare recordings: planned in advance, recorded only in place of recordings that are lost for good.

A recording is lost when a quality gate rejected it, or when it failed in run after run. A spare scene replaces a lost
one of the same trajectory type: of the same town, or of another one of the same split where the town has none left. It
goes by the plan's order, so equal losses give equal data sets. Spares are in a table of their own, so the plan is the
same with and without them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.planning.rows import PlannedRecording, read_plan

SPARES_FILE = "spares.parquet"

PlanRow = Mapping[str, Any]
"""A row of a plan, with at least recording_id, scene_id, variant, town, split and trajectory_type."""
TownAndType = tuple[str, str]
"""Town and trajectory type."""


def read_spares(dataset_dir: Path) -> list[PlannedRecording]:
    """Return the plan's spare rows, none where it has no spares."""
    path = dataset_dir / SPARES_FILE
    return read_plan(path) if os.path.lexists(path) else []


def town_and_type(row: PlanRow) -> TownAndType:
    return row["town"], row["trajectory_type"]


def count_scenes_of(rows: Iterable[PlanRow], recording_ids: Collection[str]) -> Counter[TownAndType]:
    """Count, by town and trajectory type, the scenes whose base recording is among the ids."""
    bases = (row for row in rows if row["variant"] == "base")
    return Counter(town_and_type(row) for row in bases if row["recording_id"] in recording_ids)


def replaced(
    plan: Iterable[PlanRow], spares: Iterable[PlanRow], lost: Collection[str]
) -> tuple[set[str], Counter[TownAndType]]:
    """Return the ids of the spare scenes that replace lost ones, and how many lost scenes none is left for.

    A town's own spares replace its losses first; then those that are left replace what other towns of the same split
    lost. More losses never free a spare that replaced one before, unless it is lost itself.
    """
    plan = list(plan)
    towns = {row["town"]: row["split"] for row in plan}
    to_replace = count_scenes_of(plan, lost)
    usable = [row for row in spares if row["variant"] == "base" and row["recording_id"] not in lost]
    scenes: set[str] = set()
    for row in usable:
        if to_replace[town_and_type(row)] > 0:
            to_replace[town_and_type(row)] -= 1
            scenes.add(row["scene_id"])
    for row in usable:
        if not +to_replace or row["scene_id"] in scenes:
            continue
        for town in (town for town, split in towns.items() if split == row["split"]):
            if to_replace[town, row["trajectory_type"]] > 0:
                to_replace[town, row["trajectory_type"]] -= 1
                scenes.add(row["scene_id"])
                break
    return scenes, +to_replace


def stand_ins(plan: Iterable[PlanRow], spares: Iterable[PlanRow], lost: Collection[str]) -> list[str]:
    """Return the ids of the spare recordings that replace lost ones, in the plan's order.

    `lost`: ids of lost recordings, planned and spare. A spare scene whose base is lost is passed over.
    """
    spares = list(spares)
    scenes, _ = replaced(plan, spares, lost)
    return [row["recording_id"] for row in spares if row["scene_id"] in scenes and row["recording_id"] not in lost]


def count_without_spare(
    plan: Iterable[PlanRow], spares: Iterable[PlanRow], lost: Collection[str]
) -> dict[TownAndType, int]:
    """Count, by town and trajectory type, the lost scenes that no spare is left for."""
    return dict(replaced(plan, spares, lost)[1])
