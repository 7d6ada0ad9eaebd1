"""One row of the plan: its columns, its ids, and how the recorder reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.storage import canonical_json, sha256_bytes
from tasks.planning.preset import PlanPreset

FIRST_EXTRA_ID = 3
"""Instance id of a plan's first extra actor; 1 and 2 are the agents, 0 is what is no vehicle."""
RIG = "two red vehicle.audi.tt, four 90-degree cameras each"
SCHEMA = pa.schema([
    ("recording_id", pa.string()), ("scene_id", pa.string()), ("variant", pa.string()), ("town", pa.string()),
    ("opendrive_sha256", pa.string()), ("trajectory_type", pa.string()), ("weather", pa.string()),
    ("split", pa.string()), ("site", pa.string()), ("jitter", pa.string()), ("seed", pa.int64()),
    ("ticks", pa.int32()), ("stride", pa.int32()), ("frames", pa.int32()), ("windows", pa.list_(pa.int32())),
    ("view_width", pa.int32()), ("view_height", pa.int32()), ("fixed_delta_s", pa.float64()),
    ("motion_mode", pa.string()), ("skip_unused_ticks", pa.bool_()), ("record_ground_truth", pa.bool_()),
    ("extra_actors", pa.string()), ("fact", pa.string()),
    ("gates", pa.string()), ("poses", pa.list_(pa.float32())),
])  # fmt: skip


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
    """Of a rendered view; stored views are half as wide and high."""
    view_height: int
    fixed_delta_s: float
    motion_mode: str
    skip_unused_ticks: bool
    record_ground_truth: bool
    extra_actors: list[dict[str, Any]]
    """Blueprint, attributes and transform (x, y, z, pitch, yaw, roll) of what else stands there."""
    fact: dict[str, Any]
    """What a hidden-fact scene hides (see hidden_facts.py); empty in ordinary recordings."""
    gates: dict[str, float]
    poses: np.ndarray
    """[ticks, 2, 6] x, y, z, pitch, yaw, roll of each car, CARLA's axes, metres and degrees."""


def read_plan(path: Path) -> list[PlannedRecording]:
    """Read plan.parquet in its order."""
    rows = []
    table = pq.read_table(path)
    for row, poses in zip(table.drop_columns(["poses"]).to_pylist(), table["poses"], strict=True):
        row.setdefault("fact", "{}")  # plans are older than hidden facts
        for name in ("site", "jitter", "extra_actors", "fact", "gates"):
            row[name] = json.loads(row[name])
        row["windows"] = tuple(row["windows"])
        values = poses.values.to_numpy().astype(np.float64)
        rows.append(PlannedRecording(**row, poses=values.reshape(row["ticks"], -1, 6)))
    return rows


def word(text: str) -> int:
    """Return a number for a text, the same on every machine, for seeding."""
    return int(sha256_bytes(text.encode())[:12], 16)


def finished(
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
    """Return a complete row with its ids; one tick of `poses` [ticks, 2, 6] makes it a recording of frame 0 alone."""
    seed = word(canonical_json(key)) % 2**31
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
