"""The plan: an immutable table with one row per recording. All randomness of a data set is drawn here, once.

A row's id is a hash of everything that defines the recording, so the same preset gives the same plan on every machine.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from infra.reading import read_table
from infra.storage import (
    OnProgress,
    atomic_file,
    canonical_json,
    no_progress,
    sha256_bytes,
    sha256_file,
    sweep_temporary,
)
from tasks.planning.check_opendrive import check_files
from tasks.planning.errors import PlanningError, TooFewSites
from tasks.planning.hidden_facts import hidden_fact_rows
from tasks.planning.maps import fetch_maps, read_map
from tasks.planning.preset import PlanPreset
from tasks.planning.record import check_tables, read_plan_record
from tasks.planning.roads import RoadNetwork
from tasks.planning.rows import PLAN_ANEW, PLAN_FILE, PLAN_SCHEMA
from tasks.planning.shares import Cell, Scene, deal, deal_spares, level, planned_of, spares_of, wanted_by_type
from tasks.planning.spares import SPARES_FILE
from tasks.planning.summary import CellSummary, lacking, lacking_spares, shortfalls
from tasks.planning.town import TownPlan, share_by_type

Rows = list[dict[str, Any]]


class PlannedDataSet(NamedTuple):
    """What is planned: tables of PLAN_SCHEMA, and per town and trajectory type what was wanted and possible."""

    recordings: pa.Table
    spares: pa.Table
    cells: list[CellSummary]


def plan_town(preset: PlanPreset, town: str, opendrive: str) -> tuple[Rows, Rows, list[CellSummary]]:
    """Return the town's rows, its spare rows and its cells, of equal shares. Scenes of hidden facts come in pairs and
    have no spares.

    TooFewSites where sites run out and the preset does not allow it.
    """
    if preset.scenes == "hidden_facts":
        return hidden_fact_rows(preset, RoadNetwork(town, opendrive), sha256_bytes(opendrive.encode())), [], []
    town_plan = TownPlan.of_map(preset, town, opendrive)
    rows, spares = town_plan.planned_rows(), town_plan.spare_rows()
    planned, spare = (
        Counter(row["trajectory_type"] for row in some if row["variant"] == "base") for some in (rows, spares)
    )
    cells = [
        CellSummary(town, name, wanted, planned[name], spare[name], town_plan.sites_of(name))
        for name, wanted in share_by_type(preset, town_plan.town_index).items()
    ]
    return rows, spares, cells


def plan_by_capacity(
    preset: PlanPreset, maps: Mapping[str, str], on_progress: OnProgress
) -> tuple[Rows, Rows, list[CellSummary]]:
    """Return the rows, spare rows and cells of all towns, with shares by capacity. TooFewSites where the sites of all
    towns do not suffice and the preset does not allow it."""
    towns = [TownPlan.of_map(preset, town, maps[town]) for town in preset.towns]
    cells: list[Cell] = []
    summaries: list[CellSummary] = []
    for done, (name, wanted) in enumerate(wanted_by_type(preset).items()):
        on_progress(done, len(preset.trajectory_types), name)
        of_type = [Cell(town, name) for town in towns]
        deal(of_type, wanted, planned_of)
        deal_spares(of_type, preset.spare_share)
        even = level(wanted, [wanted] * len(towns), [0] * len(towns))
        summaries += [
            CellSummary(cell.town, name, share, len(cell.planned), len(cell.spares), cell.order)
            for cell, share in zip(of_type, even, strict=True)
        ]
        cells += of_type
    if preset.short_towns == "refuse" and (sentences := shortfalls(preset, summaries)):
        raise TooFewSites(" ".join([*sentences, "Or set short_towns to 'less'."]))
    rows, spares = (
        [row for town in preset.towns for row in in_turn([of(cell) for cell in cells if cell.town == town])]
        for of in (planned_of, spares_of)
    )
    on_progress(len(preset.trajectory_types), len(preset.trajectory_types), "")
    return rows, spares, summaries


def in_turn(scenes_by_type: Sequence[Sequence[Scene]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a town's scenes, one scene of each trajectory type after another."""
    for scenes in itertools.zip_longest(*scenes_by_type, fillvalue=()):
        for scene in scenes:
            yield from scene


def build_plan(preset: PlanPreset, maps: dict[str, str], on_progress: OnProgress = no_progress) -> pa.Table:
    """Return the plan for `maps`, the OpenDRIVE text of every town. The same input gives the same plan everywhere."""
    return plan_data_set(preset, maps, on_progress).recordings


def plan_data_set(preset: PlanPreset, maps: Mapping[str, str], on_progress: OnProgress = no_progress) -> PlannedDataSet:
    """Return the plan for `maps`, as `build_plan` does, with its spare rows and what it lacks."""
    if missing := [town for town in preset.towns if town not in maps]:
        raise PlanningError(f"town {missing[0]!r} has no road network: the maps are {', '.join(sorted(maps))}.")
    if preset.shares == "capacity":
        rows, spares, cells = plan_by_capacity(preset, maps, on_progress)
    else:
        rows, spares, cells = plan_by_town(preset, maps, on_progress)
    ids = [row["recording_id"] for row in (*rows, *spares)]
    if len(set(ids)) != len(ids):
        raise PlanningError("two recordings of the plan are the same: this is a bug in planning, please report it.")
    return PlannedDataSet(pa.Table.from_pylist(rows, PLAN_SCHEMA), pa.Table.from_pylist(spares, PLAN_SCHEMA), cells)


def plan_by_town(
    preset: PlanPreset, maps: Mapping[str, str], on_progress: OnProgress
) -> tuple[Rows, Rows, list[CellSummary]]:
    """Return the rows, spare rows and cells of all towns, each with an equal share."""
    rows: Rows = []
    spares: Rows = []
    cells: list[CellSummary] = []
    for done, town in enumerate(preset.towns):
        on_progress(done, len(preset.towns), town)
        planned, spare, of_town = plan_town(preset, town, maps[town])
        rows, spares, cells = rows + planned, spares + spare, cells + of_town
    on_progress(len(preset.towns), len(preset.towns), "")
    return rows, spares, cells


def planned_by_another_version(dataset_dir: Path, preset: PlanPreset) -> bool:
    """Tell whether the hidden facts were planned by a version of this code with other settings (hidden_facts.py).

    The preset does not hold those settings, so one town of each split is planned again from its map and compared.
    """
    if preset.scenes != "hidden_facts":
        return False
    path, names = dataset_dir / "plan.parquet", ["town", "recording_id"]
    held = read_table(path, PLAN_ANEW, names, PlanningError).select(names).to_pylist()
    for town in {preset.split_of(town): town for town in preset.towns}.values():
        opendrive = read_map(dataset_dir, town)
        wanted = [row["recording_id"] for row in plan_town(preset, town, opendrive)[0]]
        if wanted != [row["recording_id"] for row in held if row["town"] == town]:
            return True
    return False


def make_plan(
    dataset_dir: Path,
    preset: PlanPreset,
    server_factory: Callable[[], contextlib.AbstractContextManager[Any]],
    *,
    on_progress: OnProgress = no_progress,
) -> bool:
    """Write maps/, plan.parquet, spares.parquet and plan.json for a data set; return False when it has this plan.

    `server_factory()` is a context manager whose value has a carla `.client`. PlanningError when the folder holds
    another plan, of another preset or of other settings of hidden facts: a plan never changes once it is written.
    """
    marker = dataset_dir / "plan.json"
    wanted = preset.to_dict()
    if marker.exists():
        record = read_plan_record(marker)
        held = PlanPreset.from_dict(record["preset"]).to_dict()
        if held == wanted:
            check_tables(dataset_dir, record)
            if planned_by_another_version(dataset_dir, preset):
                raise PlanningError(
                    f"{dataset_dir} was planned by another version, whose hidden facts stand elsewhere: move the "
                    "folder away to record the data set anew, or go on with the version that planned it."
                )
            return False
        changed = sorted(name for name in wanted if held[name] != wanted[name])
        raise PlanningError(
            f"{dataset_dir} holds another plan (its {', '.join(changed)} differ): give the new data set another name."
        )
    if (dataset_dir / "converted.json").exists():
        raise PlanningError(f"{dataset_dir} holds converted clips: give the new data set another name.")
    sweep_temporary(dataset_dir)
    sweep_temporary(dataset_dir / "maps")
    with server_factory() as server:
        maps = fetch_maps(dataset_dir, preset, server, on_progress)
    check_files([dataset_dir / "maps" / f"{town}.xodr" for town in preset.towns])
    planned = plan_data_set(preset, maps, on_progress)
    files_sha256 = {}
    for name, table in ((SPARES_FILE, planned.spares), (PLAN_FILE, planned.recordings)):
        with atomic_file(dataset_dir / name) as path:
            pq.write_table(table, path)
        files_sha256[name] = sha256_file(dataset_dir / name)
    hashes = {town: sha256_bytes(text.encode()) for town, text in maps.items()}
    record = {
        "preset": wanted,
        "preset_sha256": sha256_bytes(canonical_json(wanted).encode()),
        "maps_sha256": hashes,
        "files_sha256": files_sha256,
        "lacking": lacking(preset, planned.cells),
        "lacking_spares": lacking_spares(preset, planned.cells),
        "shortfalls": shortfalls(preset, planned.cells),
        "cells": [cell.to_dict() for cell in planned.cells],
    }
    with atomic_file(marker) as path:
        path.write_text(json.dumps(record, indent=1))
    return True
