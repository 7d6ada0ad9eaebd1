"""Rows of the plan: their columns, how they are made and identified, and how the recorder reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from infra.reading import parse_json, read_table
from infra.storage import canonical_json, sha256_bytes
from tasks.planning.errors import PlanningError
from tasks.planning.preset import PlanPreset

AGENTS = 2
FIRST_EXTRA_ID = 3
"""Instance id of a plan's first extra actor; 1 and 2 are the agents, 0 is what is no vehicle."""
RIG = "two red vehicle.audi.tt, four 90-degree cameras each"
PLAN_SCHEMA = pa.schema([
    ("recording_id", pa.string()), ("scene_id", pa.string()), ("variant", pa.string()), ("town", pa.string()),
    ("opendrive_sha256", pa.string()), ("trajectory_type", pa.string()), ("weather", pa.string()),
    ("split", pa.string()), ("site", pa.string()), ("jitter", pa.string()), ("seed", pa.int64()),
    ("ticks", pa.int32()), ("stride", pa.int32()), ("frames", pa.int32()), ("windows", pa.list_(pa.int32())),
    ("view_width", pa.int32()), ("view_height", pa.int32()), ("fixed_delta_s", pa.float64()),
    ("motion_mode", pa.string()), ("skip_unused_ticks", pa.bool_()), ("record_ground_truth", pa.bool_()),
    ("extra_actors", pa.string()), ("fact", pa.string()),
    ("gates", pa.string()), ("poses", pa.list_(pa.float32())),
])  # fmt: skip

COLUMNS_ADDED_LATER = {"fact": "{}"}
"""Columns that older plans lack, with the value that they have there."""
JSON_COLUMNS = {"site": dict, "jitter": dict, "extra_actors": list, "fact": dict, "gates": dict}
MAX_TICKS, MAX_VIEW_PX, MAX_COORDINATE_M = 10**6, 2**14, 1e7
PLAN_FILE = "plan.parquet"
PLAN_ANEW = "move the folder away and plan the data set anew."


@dataclass(frozen=True)
class PlannedRecording:
    """One row of the plan, as the recorder reads it."""

    recording_id: str
    scene_id: str
    variant: str
    town: str
    opendrive_sha256: str
    trajectory_type: str
    weather: str
    split: str
    site: dict[str, Any]
    jitter: dict[str, Any]
    seed: int
    ticks: int
    stride: int
    frames: int
    windows: tuple[int, ...]
    view_width: int
    """Width of a rendered view in pixels; stored views are half as wide and high."""
    view_height: int
    fixed_delta_s: float
    motion_mode: str
    skip_unused_ticks: bool
    record_ground_truth: bool
    extra_actors: list[dict[str, Any]]
    """Blueprint, attributes and transform (x, y, z, pitch, yaw, roll) of every other actor in the scene."""
    fact: dict[str, Any]
    """What a hidden-fact scene hides (see hidden_facts.py); empty in ordinary recordings."""
    gates: dict[str, float]
    poses: np.ndarray
    """[ticks, 2, 6]: x, y, z, pitch, yaw, roll of each car in CARLA's axes, metres and degrees."""


def read_plan(path: Path) -> list[PlannedRecording]:
    """Return the rows of plan.parquet in order. PlanningError for a damaged file, or a row that cannot be recorded."""
    required = [field.name for field in PLAN_SCHEMA if field.name not in COLUMNS_ADDED_LATER]
    table = read_table(path, PLAN_ANEW, required, PlanningError)
    for field in PLAN_SCHEMA:
        if field.name in table.column_names and table.schema.field(field.name).type != field.type:
            found = table.schema.field(field.name).type
            raise PlanningError(f"{path} has {field.name} of type {found} where {field.type} belongs: {PLAN_ANEW}")
    table = table.select([name for name in PLAN_SCHEMA.names if name in table.column_names])
    values = table.drop_columns(["poses"]).to_pylist()
    return [
        read_row(COLUMNS_ADDED_LATER | row, poses, f"{path}, row {index}")
        for index, (row, poses) in enumerate(zip(values, table["poses"], strict=True))
    ]


def read_row(row: Mapping[str, Any], poses: pa.ListScalar, where: str) -> PlannedRecording:
    """Return a row of plan.parquet as a recording. `where` names the row in errors. PlanningError for a bad value."""
    missing = next((name for name, value in row.items() if value is None), None if poses.is_valid else "poses")
    if missing is not None:
        raise PlanningError(f"{where} has no {missing}: {PLAN_ANEW}")
    problem = problem_with(row)
    if problem:
        raise PlanningError(f"{where} has {problem}: {PLAN_ANEW}")
    parsed = {
        name: parse_json(row[name], f"{name} in {where}", PLAN_ANEW, kind=kind, error=PlanningError)
        for name, kind in JSON_COLUMNS.items()
    }
    flat = poses.values.to_numpy(zero_copy_only=False).astype(np.float64)
    if flat.size != row["ticks"] * AGENTS * 6 or not (np.abs(flat) <= MAX_COORDINATE_M).all():
        raise PlanningError(f"{where} has poses that are not {row['ticks']} finite ones of each car: {PLAN_ANEW}")
    windows = tuple(row["windows"])
    return PlannedRecording(**{**row, **parsed, "windows": windows}, poses=flat.reshape(row["ticks"], AGENTS, 6))


def problem_with(row: Mapping[str, Any]) -> str:
    """Return why a row cannot be recorded, or an empty string."""
    for name in ("recording_id", "town"):
        if not row[name].isprintable() or "/" in row[name] or "\\" in row[name] or row[name][:1] in ("", "."):
            return f"{name} {row[name]!r:.80}, which cannot be the name of a file"
    if row["split"] not in ("train", "val", "test"):
        return f"split {row['split']!r:.80}"
    for name, most in (("ticks", MAX_TICKS), ("stride", MAX_TICKS), ("frames", MAX_TICKS),
                       ("view_width", MAX_VIEW_PX), ("view_height", MAX_VIEW_PX)):  # fmt: skip
        if not 1 <= row[name] <= most:
            return f"{name} {row[name]}"
    if row["view_width"] % 4 or row["view_height"] % 4:
        return f"views of {row['view_width']}x{row['view_height']} that cannot be halved to even sides"
    if not (math.isfinite(row["fixed_delta_s"]) and 0.001 <= row["fixed_delta_s"] <= 1):
        return f"fixed_delta_s {row['fixed_delta_s']}"
    starts = row["windows"]
    if not starts or None in starts or min(starts) < 0 or len(set(starts)) < len(starts):
        return f"windows {starts!r:.80}"
    last = max(starts) + row["stride"] * (row["frames"] - 1)
    return f"windows that need {last + 1} ticks of {row['ticks']}" if last >= row["ticks"] else ""


def seed_of_text(text: str) -> int:
    """Return a seed for a random generator made from a text, the same on every machine."""
    return int(sha256_bytes(text.encode())[:12], 16)


def plan_row(
    preset: PlanPreset,
    shared: dict,
    site: dict,
    jitter: dict,
    poses: np.ndarray,
    variant: str,
    key: list,
    *,
    extra_actors: list[dict] | None = None,
    fact: dict | None = None,
) -> dict[str, Any]:
    """Return a complete row of the plan with its ids.

    poses: [ticks, 2, 6]; with a single tick, the row is a recording of frame 0 alone. `shared`: the columns town,
    opendrive_sha256, trajectory_type, weather and split. `key`: the numbers that seed the scene.
    """
    seed = seed_of_text(canonical_json(key)) % 2**31
    geometry = {name: getattr(preset, name) for name in ("ticks", "stride", "frames", "view_width", "view_height")}
    geometry |= {
        "windows": list(preset.windows),
        "fixed_delta_s": preset.fixed_delta_s,
        "motion_mode": preset.motion_mode,
        "skip_unused_ticks": preset.skip_unused_ticks,
    }
    gates = preset.gates
    if len(poses) == 1:
        geometry |= {"ticks": 1, "frames": 1, "windows": [0]}
        gates = gates | {"min_motion": 0.0}
    scene_identity = {"site": site, "seed": seed, **shared}
    identity = scene_identity | {
        "jitter": jitter,
        "rig": RIG,
        "variant": variant,
        "extra_actors": extra_actors or [],
        "poses_sha256": sha256_bytes(poses.tobytes()),
        **geometry,
    }
    return {
        "recording_id": sha256_bytes(canonical_json(identity).encode())[:16],
        "scene_id": sha256_bytes(canonical_json(scene_identity).encode())[:16],
        "variant": variant,
        **shared,
        "site": canonical_json(site),
        "jitter": canonical_json(jitter),
        "seed": seed,
        **geometry,
        "record_ground_truth": shared["split"] in preset.ground_truth_splits,
        "extra_actors": canonical_json(extra_actors or []),
        "fact": canonical_json(fact or {}),
        "gates": canonical_json(gates),
        "poses": poses.reshape(-1),
    }
