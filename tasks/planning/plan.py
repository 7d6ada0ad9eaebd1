"""The plan: an immutable table, one row a recording; everything random in it is drawn here, once.

A row's id is the hash of what the recording is, so two machines that make one plan make one set of recordings.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.reading import read_bytes, read_json, read_table
from infra.storage import OnProgress, atomic_file, canonical_json, no_progress, sha256_bytes, sweep_temporary
from tasks.planning.check_opendrive import check_files
from tasks.planning.errors import PlanningError, TooFewSites
from tasks.planning.hidden_facts import hidden_fact_rows
from tasks.planning.motion import MARGIN_M, closest_approach, drive, gap
from tasks.planning.preset import PlanPreset
from tasks.planning.roads import RoadNetwork
from tasks.planning.rows import PLAN_ANEW, SCHEMA, finished, word
from tasks.planning.sites import Site, find_sites

ATTEMPTS = 12
MEETING_M = 30.0
"""The cars come at least this near to each other."""
HEADWAY_M = (8.0, 14.0)


def cell(preset: PlanPreset, town: int, number: int) -> tuple[str, str]:
    """Return type and weather of a town's `number`-th recording.

    A Latin square: with six types, three weathers and 12 towns every type comes 6 times, every weather 12 times and
    every pair of them twice in 36, and a town's three recordings differ in both.
    """
    types, weathers = preset.trajectory_types, preset.weathers
    half = max(len(types) // 2, 1)
    step = 2 if len(types) > 2 else 1
    return types[(town + step * number + number // half) % len(types)], weathers[(town + number) % len(weathers)]


def draw(preset: PlanPreset, site: Site, rng: np.random.Generator, partner: np.random.Generator) -> dict[str, Any]:
    """Draw one jitter. Car 1's part comes from `partner`, so that variants can change it alone."""
    low, high = preset.min_speed_mps, preset.max_speed_mps
    cruise = float(rng.uniform(low, high))
    together = site.headway_m > 0 or site.gap_s > 0
    other = cruise * float(partner.uniform(0.95, 1.0)) if together else float(partner.uniform(low, high))
    shift = preset.start_jitter_s
    return {
        "cruise_mps": [round(cruise, 4), round(max(other, low), 4)],
        "shift_s": [round(float(g.uniform(-shift, shift)), 4) for g in (rng, partner)],
        "lateral_m": [round(float(g.uniform(-1, 1)) * preset.lateral_jitter_m, 4) for g in (rng, partner)],
        "headway_m": round(float(partner.uniform(*HEADWAY_M)), 4) if site.headway_m else 0.0,
    }


def trajectory(preset: PlanPreset, site: Site, jitter: dict[str, Any]) -> np.ndarray | None:
    """Return poses [ticks, 2, 6] float32 of cars that meet and do not touch, None where they cannot."""
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
        apart = gap(poses[:, 0].astype(float), poses[:, 1].astype(float)).min() >= MARGIN_M
        if apart and closest_approach(poses)[1] <= MEETING_M:
            return poses
        if site.gap_s <= 0:
            return None
    return None


Drawn = tuple[dict[str, Any], np.ndarray]
"""A jitter and the poses [ticks, 2, 6] that come of it."""


def attempt(preset: PlanPreset, site: Site, key: list, base: Drawn | None = None) -> Drawn | None:
    """Draw jitters until one gives a drivable pair; None when none of them does.

    `base`: draw car 1's part alone anew, and let car 0 drive as it does there.
    """
    for number in range(ATTEMPTS):
        pace = base[0]["attempt"] if base else number
        # later attempts are slower: short roads ask for it
        top_mps = preset.max_speed_mps - (preset.max_speed_mps - preset.min_speed_mps) * pace / (ATTEMPTS - 1)
        slower = preset.model_copy(update={"max_speed_mps": top_mps})
        rng = np.random.default_rng([*key, pace, 0])
        partner = np.random.default_rng([*key, number, 2 if base else 1])
        jitter = draw(slower, site, rng, partner)
        if base:
            jitter["headway_m"] = base[0]["headway_m"]  # half of it is car 0's
        poses = trajectory(preset, site, jitter)
        if poses is not None and (base is None or np.array_equal(poses[:, 0], base[1][:, 0])):
            return jitter | {"attempt": pace}, poses
    return None


def town_rows(preset: PlanPreset, town: str, opendrive: str) -> list[dict[str, Any]]:
    """Return the town's rows. TooFewSites where it lacks some and the preset does not make do with less."""
    roads = RoadNetwork(town, opendrive)
    sha = sha256_bytes(opendrive.encode())
    if preset.scenes == "hidden_facts":
        return hidden_fact_rows(preset, roads, sha)
    position = preset.towns.index(town)
    sites: dict[str, list[Site]] = {}
    queue: dict[str, list[int]] = {}
    used: dict[str, list[tuple[Site, int]]] = {}
    rows = []
    for number in range(preset.recordings_per_town):
        kind, weather = cell(preset, position, number)
        if kind not in sites:
            sites[kind] = sites_of(preset, roads, kind)
            order = np.random.default_rng([preset.seed, word(town), word(kind)]).permutation(len(sites[kind]))
            queue[kind], used[kind] = order.tolist(), []
        try:
            rows += scene(preset, town, sha, kind, weather, number, sites[kind], queue[kind], used[kind])
        except TooFewSites:
            if preset.short_towns == "refuse":
                raise
    return rows


def sites_of(preset: PlanPreset, roads: RoadNetwork, kind: str) -> list[Site]:
    """Return a town's sites of a type; none where it has none and the preset makes do with less."""
    try:
        return find_sites(roads, kind)
    except TooFewSites:
        if preset.short_towns == "refuse":
            raise
        return []


def shortage(preset: PlanPreset, plan: pa.Table) -> dict[str, dict[str, int]]:
    """Return how many recordings of each type the plan lacks of a town's share; what lacks nothing is left out."""
    planned = Counter(
        (row["town"], row["trajectory_type"])
        for row in plan.select(["town", "trajectory_type", "variant"]).to_pylist()
        if row["variant"] == "base"
    )
    lacking: dict[str, dict[str, int]] = {}
    if preset.scenes == "hidden_facts":
        return lacking
    for position, town in enumerate(preset.towns):
        share = Counter(cell(preset, position, number)[0] for number in range(preset.recordings_per_town))
        lack = {kind: count - planned[town, kind] for kind, count in share.items() if count > planned[town, kind]}
        if lack:
            lacking[town] = lack
    return lacking


def scene(preset, town, sha, kind, weather, number, sites, queue, used) -> list[dict[str, Any]]:
    """Return the rows of one scene: its base and, where the preset asks for it, its variant."""
    while True:
        if used and used[-1][1] < preset.repeats:
            site, repeat = used[-1]
            used[-1] = (site, repeat + 1)
        elif queue:
            site, repeat = sites[queue.pop(0)], 0
            used.append((site, 1))
        else:
            raise TooFewSites(
                f"town {town} has {len(sites)} sites of type {kind!r}, too few for {preset.recordings_per_town} "
                "recordings a town: lower recordings_per_town, raise repeats, add towns, or set short_towns to 'less'."
            )
        key = [preset.seed, word(town), word(kind), word(site.name), number]
        base = attempt(preset, site, key)
        if base is None:
            used.pop()
            continue
        split = preset.split_of(town)
        found = [("base", base)]
        if preset.other_trajectories and split != "train":
            other = attempt(preset, site, key, base)
            found += [("other_trajectory", other)] if other else []
        shared = {"town": town, "opendrive_sha256": sha, "trajectory_type": kind, "weather": weather, "split": split}
        return [
            finished(preset, shared, {"name": site.name}, jitter | {"repeat": repeat}, poses, variant, key)
            for variant, (jitter, poses) in found
        ]


def build_plan(preset: PlanPreset, maps: dict[str, str], on_progress: OnProgress = no_progress) -> pa.Table:
    """Return the plan for towns whose OpenDRIVE texts are `maps`. The same for the same input on every machine."""
    rows: list[dict[str, Any]] = []
    for done, town in enumerate(preset.towns):
        on_progress(done, len(preset.towns), town)
        if town not in maps:
            raise PlanningError(f"town {town!r} has no road network: the maps are {', '.join(sorted(maps))}.")
        rows += town_rows(preset, town, maps[town])
    ids = [row["recording_id"] for row in rows]
    if len(set(ids)) != len(ids):
        raise PlanningError("two recordings of the plan are the same: this is a fault in planning, please report it.")
    on_progress(len(preset.towns), len(preset.towns), "")
    return pa.Table.from_pylist(rows, SCHEMA)


def survey(dataset_dir: Path, preset: PlanPreset, server: Any, on_progress: OnProgress) -> dict[str, str]:
    """Ask a running server for the towns' road networks; save them in maps/ and return the texts."""
    import carla

    known = {name.rsplit("/", 1)[-1] for name in server.client.get_available_maps()}
    for town in preset.towns:
        if town not in known:
            raise PlanningError(f"the simulator has no town {town!r}: it has {', '.join(sorted(known))}.")
    maps = {}
    for done, town in enumerate(preset.towns):
        on_progress(done, len(preset.towns), f"survey of {town}")
        world = server.client.load_world(town, True, carla.MapLayer.NONE)
        maps[town] = world.get_map().to_opendrive()
        with atomic_file(dataset_dir / "maps" / f"{town}.xodr") as path:
            path.write_text(maps[town], encoding="utf-8")
    return maps


def read_map(dataset_dir: Path, town: str) -> str:
    """Return a town's road network, with line ends as they came. PlanningError for a damaged file."""
    path = dataset_dir / "maps" / f"{town}.xodr"
    try:
        return read_bytes(path, PLAN_ANEW, PlanningError).decode()
    except UnicodeDecodeError as error:
        raise PlanningError(f"{path} is no text ({error}): {PLAN_ANEW}") from error


def planned_otherwise(dataset_dir: Path, preset: PlanPreset) -> bool:
    """Tell whether hidden facts were planned by a version of this code with other settings (hidden_facts.py).

    The preset does not hold those. A town of each split is planned again, from the road networks in maps/.
    """
    if preset.scenes != "hidden_facts":
        return False
    path, names = dataset_dir / "plan.parquet", ["town", "recording_id"]
    held = read_table(path, PLAN_ANEW, names, PlanningError).select(names).to_pylist()
    for town in {preset.split_of(town): town for town in preset.towns}.values():
        opendrive = read_map(dataset_dir, town)
        wanted = [row["recording_id"] for row in town_rows(preset, town, opendrive)]
        if wanted != [row["recording_id"] for row in held if row["town"] == town]:
            return True
    return False


def read_record(marker: Path) -> dict[str, Any]:
    """Return plan.json: `preset`, and by town and type what it `lacks`. PlanningError for a damaged file."""
    record: dict[str, Any] = {"lacking": {}} | read_json(marker, PLAN_ANEW, error=PlanningError)
    short = record["lacking"]
    if not isinstance(record.get("preset"), dict) or not isinstance(short, dict):
        raise PlanningError(f"{marker} holds no preset, or no list of what lacks: {PLAN_ANEW}")
    if not all(isinstance(types, dict) for types in short.values()):
        raise PlanningError(f"{marker} says that {short!r:.80} is lacking: {PLAN_ANEW}")
    return record


def make_plan(
    dataset_dir: Path,
    preset: PlanPreset,
    server_factory: Callable[[], contextlib.AbstractContextManager[Any]],
    *,
    on_progress: OnProgress = no_progress,
) -> bool:
    """Write maps/, plan.parquet and plan.json for a data set; return False when the same plan was already there.

    `server_factory()` is a context manager whose value has a carla `.client`. PlanningError when the folder holds
    another plan, of another preset or of other settings of hidden facts: plans never change under recordings.
    """
    marker, table = dataset_dir / "plan.json", dataset_dir / "plan.parquet"
    wanted = preset.to_dict()
    if marker.exists():
        held = PlanPreset.from_dict(read_record(marker)["preset"]).to_dict()
        if held == wanted:
            if planned_otherwise(dataset_dir, preset):
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
        maps = survey(dataset_dir, preset, server, on_progress)
    check_files([dataset_dir / "maps" / f"{town}.xodr" for town in preset.towns])
    plan = build_plan(preset, maps, on_progress)
    with atomic_file(table) as path:
        pq.write_table(plan, path)
    hashes = {town: sha256_bytes(text.encode()) for town, text in maps.items()}
    record = {
        "preset": wanted,
        "preset_sha256": sha256_bytes(canonical_json(wanted).encode()),
        "maps_sha256": hashes,
        "lacking": shortage(preset, plan),
    }
    with atomic_file(marker) as path:
        path.write_text(json.dumps(record, indent=1))
    return True


def describe_plan(plan: pa.Table) -> list[dict[str, Any]]:
    """Return ids, type and closest approach (tick, metres) of each row, for tables and plots."""
    rows = []
    for row in plan.to_pylist():
        tick, distance = closest_approach(np.array(row["poses"]).reshape(row["ticks"], -1, 6))
        rows.append({name: row[name] for name in ("recording_id", "town", "trajectory_type", "weather", "split")})
        rows[-1] |= {"closest_tick": tick, "closest_m": distance}
    return rows
