"""The plan: an immutable table with one row per recording. All randomness of a data set is drawn here, once.

A row's id is a hash of everything that defines the recording, so the same preset gives the same plan on every machine.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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
from tasks.planning.motion import MARGIN_M, closest_approach, drive, separation_m
from tasks.planning.preset import PlanPreset
from tasks.planning.record import check_tables, read_plan_record
from tasks.planning.roads import RoadNetwork
from tasks.planning.rows import PLAN_ANEW, PLAN_FILE, PLAN_SCHEMA, plan_row, seed_of_text
from tasks.planning.sites import Site, find_sites
from tasks.planning.spares import SPARES_FILE, TownAndType, town_and_type

DRAWS_PER_SITE = 12
"""Jitters that are drawn at a site before it is given up."""
MEETING_M = 30.0
"""The cars come at least this close to each other."""
HEADWAY_M = (8.0, 14.0)
"""Range of the distance between the centres of cars that follow each other."""


def scheduled_type_and_weather(preset: PlanPreset, town_index: int, number: int) -> tuple[str, str]:
    """Return trajectory type and weather of a town's `number`-th recording.

    A Latin square: with 6 types, 3 weathers and 12 towns, 36 recordings have every type 6 times, every weather 12 times
    and every pair of them twice, and the three recordings of a town differ in both.
    """
    types, weathers = preset.trajectory_types, preset.weathers
    half = max(len(types) // 2, 1)
    step = 2 if len(types) > 2 else 1
    trajectory_type = types[(town_index + step * number + number // half) % len(types)]
    return trajectory_type, weathers[(town_index + number) % len(weathers)]


def draw_jitter(
    preset: PlanPreset, site: Site, rng: np.random.Generator, partner_rng: np.random.Generator
) -> dict[str, Any]:
    """Draw one jitter. Car 1's values come from `partner_rng`, so that a variant can change them alone."""
    low, high = preset.min_speed_mps, preset.max_speed_mps
    cruise = float(rng.uniform(low, high))
    same_direction = site.headway_m > 0 or site.gap_s > 0
    partner_cruise = (
        cruise * float(partner_rng.uniform(0.95, 1.0)) if same_direction else float(partner_rng.uniform(low, high))
    )
    shift, lateral = preset.start_jitter_s, preset.lateral_jitter_m
    return {
        "cruise_mps": [round(cruise, 4), round(max(partner_cruise, low), 4)],
        "shift_s": [round(float(g.uniform(-shift, shift)), 4) for g in (rng, partner_rng)],
        "lateral_m": [round(float(g.uniform(-1, 1)) * lateral, 4) for g in (rng, partner_rng)],
        "headway_m": round(float(partner_rng.uniform(*HEADWAY_M)), 4) if site.headway_m else 0.0,
    }


def drive_pair(preset: PlanPreset, site: Site, jitter: dict[str, Any]) -> np.ndarray | None:
    """Return poses [ticks, 2, 6] float32 of cars that meet without touching; None where they cannot."""
    times = np.arange(preset.ticks) * preset.fixed_delta_s
    middle = times[-1] / 2
    for wait in np.arange(0.0, 2.5, 0.5):
        cars = []
        for agent, sign in ((0, -1), (1, 1)):
            cars.append(
                drive(
                    site.ways[agent],
                    times,
                    meet_s=middle + sign * (site.gap_s + wait * (site.gap_s > 0)) / 2 + jitter["shift_s"][agent],
                    cruise_mps=jitter["cruise_mps"][agent],
                    lateral_m=jitter["lateral_m"][agent],
                    ahead_m=-sign * jitter["headway_m"] / 2,
                )
            )
        if cars[0] is None or cars[1] is None:
            return None
        poses = np.stack([cars[0], cars[1]], 1).astype(np.float32)
        apart = separation_m(poses[:, 0].astype(float), poses[:, 1].astype(float)).min() >= MARGIN_M
        if apart and closest_approach(poses)[1] <= MEETING_M:
            return poses
        if site.gap_s <= 0:
            return None
    return None


class Drive(NamedTuple):
    """A drivable pair of trajectories."""

    jitter: dict[str, Any]
    poses: np.ndarray
    """[ticks, 2, 6] float32"""


def draw_drive(preset: PlanPreset, site: Site, key: list, base: Drive | None = None) -> Drive | None:
    """Draw jitters until one gives a drivable pair; None when none does.

    With a `base`, only car 1's part is drawn, and car 0 drives as it does there.
    """
    for number in range(DRAWS_PER_SITE):
        pace = base.jitter["attempt"] if base else number
        # later attempts are slower, which short roads need
        top_mps = preset.max_speed_mps - (preset.max_speed_mps - preset.min_speed_mps) * pace / (DRAWS_PER_SITE - 1)
        slower = preset.model_copy(update={"max_speed_mps": top_mps})
        rng = np.random.default_rng([*key, pace, 0])
        partner_rng = np.random.default_rng([*key, number, 2 if base else 1])
        jitter = draw_jitter(slower, site, rng, partner_rng)
        if base:
            jitter["headway_m"] = base.jitter["headway_m"]  # half of it is car 0's
        poses = drive_pair(preset, site, jitter)
        if poses is not None and (base is None or np.array_equal(poses[:, 0], base.poses[:, 0])):
            return Drive(jitter | {"attempt": pace}, poses)
    return None


class SitesOfType:
    """A town's sites of one trajectory type, handed out in random order, each `repeats` times at most."""

    def __init__(self, sites: list[Site], order: np.random.Generator, repeats: int) -> None:
        self.sites, self.repeats = sites, repeats
        self.unused = order.permutation(len(sites)).tolist()
        self.current: Site | None = None
        self.uses = 0
        """Of the current site."""

    def take(self) -> tuple[Site, int] | None:
        """Return a site and how often it was used before; None when none is left."""
        if self.current is None or self.uses >= self.repeats:
            if not self.unused:
                return None
            self.current, self.uses = self.sites[self.unused.pop(0)], 0
        self.uses += 1
        return self.current, self.uses - 1

    def drop(self) -> None:
        """Give up the current site: no drivable pair was found there."""
        self.current = None


class TownPlan:
    """Draws a town's scenes one after another."""

    def __init__(self, preset: PlanPreset, town: str, roads: RoadNetwork, opendrive_sha256: str) -> None:
        self.preset, self.town, self.roads, self.opendrive_sha256 = preset, town, roads, opendrive_sha256
        self.town_index = preset.towns.index(town)
        self.sites: dict[str, SitesOfType] = {}

    def planned_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the town's share. TooFewSites where sites run out and the preset does not allow it."""
        rows = []
        for number in range(self.preset.recordings_per_town):
            trajectory_type, weather = scheduled_type_and_weather(self.preset, self.town_index, number)
            try:
                rows += self.scene_rows(trajectory_type, weather, number)
            except TooFewSites:
                if self.preset.short_towns == "refuse":
                    raise
        return rows

    def spare_rows(self) -> list[dict[str, Any]]:
        """Return the rows of spare scenes, type by type, drawn after the planned ones; fewer where sites run out."""
        number, rows = self.preset.recordings_per_town, []
        for trajectory_type, planned in share_by_type(self.preset, self.town_index).items():
            for _ in range(math.ceil(self.preset.spare_share * planned)):
                _, weather = scheduled_type_and_weather(self.preset, self.town_index, number)
                with contextlib.suppress(TooFewSites):
                    rows += self.scene_rows(trajectory_type, weather, number)
                number += 1
        return rows

    def scene_rows(self, trajectory_type: str, weather: str, number: int) -> list[dict[str, Any]]:
        """Return the rows of the town's `number`-th scene: its base and, where the preset asks for it, its variant.

        TooFewSites when no site of the type is left.
        """
        preset, sites = self.preset, self.sites_of(trajectory_type)
        while taken := sites.take():
            site, repeat = taken
            key = [preset.seed, seed_of_text(self.town), seed_of_text(trajectory_type), seed_of_text(site.name), number]
            base = draw_drive(preset, site, key)
            if base is None:
                sites.drop()
                continue
            split = preset.split_of(self.town)
            variants = {"base": base}
            if preset.other_trajectories and split != "train" and (other := draw_drive(preset, site, key, base)):
                variants["other_trajectory"] = other
            shared = {
                "town": self.town,
                "opendrive_sha256": self.opendrive_sha256,
                "trajectory_type": trajectory_type,
                "weather": weather,
                "split": split,
            }
            return [
                plan_row(preset, shared, {"name": site.name}, jitter | {"repeat": repeat}, poses, variant, key)
                for variant, (jitter, poses) in variants.items()
            ]
        raise TooFewSites(
            f"town {self.town} has {len(sites.sites)} sites of type {trajectory_type!r}, too few for "
            f"{preset.recordings_per_town} recordings per town: lower recordings_per_town, raise repeats, add towns, "
            "or set short_towns to 'less'."
        )

    def sites_of(self, trajectory_type: str) -> SitesOfType:
        """Return the town's sites of a type. TooFewSites where it has none and the preset does not allow it."""
        if trajectory_type not in self.sites:
            try:
                sites = find_sites(self.roads, trajectory_type)
            except TooFewSites:
                if self.preset.short_towns == "refuse":
                    raise
                sites = []
            order = np.random.default_rng([self.preset.seed, seed_of_text(self.town), seed_of_text(trajectory_type)])
            self.sites[trajectory_type] = SitesOfType(sites, order, self.preset.repeats)
        return self.sites[trajectory_type]


def plan_town(preset: PlanPreset, town: str, opendrive: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the town's rows and its spare rows. Scenes of hidden facts come in pairs and have no spares.

    TooFewSites where sites run out and the preset does not allow it.
    """
    roads = RoadNetwork(town, opendrive)
    opendrive_sha256 = sha256_bytes(opendrive.encode())
    if preset.scenes == "hidden_facts":
        return hidden_fact_rows(preset, roads, opendrive_sha256), []
    town_plan = TownPlan(preset, town, roads, opendrive_sha256)
    return town_plan.planned_rows(), town_plan.spare_rows()


def share_by_type(preset: PlanPreset, town_index: int) -> Counter[str]:
    """Count the recordings that a town is to have of each trajectory type."""
    numbers = range(preset.recordings_per_town)
    return Counter(scheduled_type_and_weather(preset, town_index, number)[0] for number in numbers)


def count_scenes(plan: pa.Table) -> Counter[TownAndType]:
    """Count a table's scenes by town and trajectory type."""
    rows = plan.select(["town", "trajectory_type", "variant"]).to_pylist()
    return Counter(town_and_type(row) for row in rows if row["variant"] == "base")


def shortage(preset: PlanPreset, plan: pa.Table) -> dict[str, dict[str, int]]:
    """Return, by town and trajectory type, how many recordings of a town's share are missing; zeros are left out."""
    if preset.scenes == "hidden_facts":
        return {}
    planned = count_scenes(plan)
    shortages: dict[str, dict[str, int]] = {}
    for town_index, town in enumerate(preset.towns):
        for trajectory_type, wanted in share_by_type(preset, town_index).items():
            missing = wanted - planned[town, trajectory_type]
            if missing > 0:
                shortages.setdefault(town, {})[trajectory_type] = missing
    return shortages


def spare_shortage(preset: PlanPreset, plan: pa.Table, spares: pa.Table) -> dict[str, dict[str, int]]:
    """Return, by town and trajectory type, how many spare scenes had no site left; zeros are left out."""
    if preset.scenes == "hidden_facts":
        return {}
    planned, spare = count_scenes(plan), count_scenes(spares)
    shortages: dict[str, dict[str, int]] = {}
    for (town, trajectory_type), count in planned.items():
        missing = math.ceil(preset.spare_share * count) - spare[town, trajectory_type]
        if missing > 0:
            shortages.setdefault(town, {})[trajectory_type] = missing
    return shortages


def build_plan(preset: PlanPreset, maps: dict[str, str], on_progress: OnProgress = no_progress) -> pa.Table:
    """Return the plan for `maps`, the OpenDRIVE text of every town. The same input gives the same plan everywhere."""
    return build_plan_and_spares(preset, maps, on_progress)[0]


def build_plan_and_spares(
    preset: PlanPreset, maps: dict[str, str], on_progress: OnProgress = no_progress
) -> tuple[pa.Table, pa.Table]:
    """Return the plan, as `build_plan` does, and the table of its spare rows."""
    rows: list[dict[str, Any]] = []
    spares: list[dict[str, Any]] = []
    for done, town in enumerate(preset.towns):
        on_progress(done, len(preset.towns), town)
        if town not in maps:
            raise PlanningError(f"town {town!r} has no road network: the maps are {', '.join(sorted(maps))}.")
        planned, spare = plan_town(preset, town, maps[town])
        rows += planned
        spares += spare
    ids = [row["recording_id"] for row in (*rows, *spares)]
    if len(set(ids)) != len(ids):
        raise PlanningError("two recordings of the plan are the same: this is a bug in planning, please report it.")
    on_progress(len(preset.towns), len(preset.towns), "")
    return pa.Table.from_pylist(rows, PLAN_SCHEMA), pa.Table.from_pylist(spares, PLAN_SCHEMA)


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
    plan, spares = build_plan_and_spares(preset, maps, on_progress)
    files_sha256 = {}
    for name, table in ((SPARES_FILE, spares), (PLAN_FILE, plan)):
        with atomic_file(dataset_dir / name) as path:
            pq.write_table(table, path)
        files_sha256[name] = sha256_file(dataset_dir / name)
    hashes = {town: sha256_bytes(text.encode()) for town, text in maps.items()}
    record = {
        "preset": wanted,
        "preset_sha256": sha256_bytes(canonical_json(wanted).encode()),
        "maps_sha256": hashes,
        "files_sha256": files_sha256,
        "lacking": shortage(preset, plan),
        "lacking_spares": spare_shortage(preset, plan, spares),
    }
    with atomic_file(marker) as path:
        path.write_text(json.dumps(record, indent=1))
    return True
