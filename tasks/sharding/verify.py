"""`verify` re-reads everything: the plan's and the shards' hashes, the index, every sample's members and pictures.

The index is derived anew from the plan and the shards, whose hashes make the digest, and must be the one that is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from infra.reading import read_json, read_parquet, read_sha256, read_table
from infra.storage import OnProgress, atomic_file, no_progress
from tasks.planning.rows import PLAN_FILE
from tasks.planning.spares import SPARES_FILE
from tasks.sharding.errors import ShardError
from tasks.sharding.index import RUN_AGAIN, SPLITS, check_rows, read_members, read_record
from tasks.sharding.reader import ClipPair, read_pair
from tasks.sharding.shards import index_rows, planned_clips


def verify(dataset_dir: Path, *, on_progress: OnProgress = no_progress) -> int:
    """Read every sample of every shard; return their number. ShardError names shard and key of the first fault.

    A data set that was written before dataset.json held the index's hash gets it, once everything is found whole.
    """
    dataset_dir = Path(dataset_dir)
    record = read_record(dataset_dir)
    check_hashes(dataset_dir, record)
    rows = derived_rows(dataset_dir, record)
    check_index(dataset_dir, record, rows)
    check_missing(dataset_dir, record, rows)
    promised = promised_truth(dataset_dir)
    for done, row in enumerate(rows):
        on_progress(done, len(rows), row["key"])
        pair = read_pair(row["key"], read_members(dataset_dir, row))
        check_truth(pair, promised.get(row["recording_id"]), row["split"])
    on_progress(len(rows), len(rows), "")
    if "index_sha256" not in record:
        adopt(dataset_dir)
    return len(rows)


def check_hashes(dataset_dir: Path, record: Mapping[str, Any]) -> None:
    """Raise ShardError unless plan and shards are those that dataset.json, and so the digest, says."""
    if read_sha256(dataset_dir / "plan.parquet", RUN_AGAIN, ShardError) != record["plan_sha256"]:
        raise ShardError(f"plan.parquet is not what dataset.json says: {RUN_AGAIN}")
    for shard, digest in record["shards"].items():
        if read_sha256(dataset_dir / shard, RUN_AGAIN, ShardError) != digest:
            raise ShardError(f"{shard} is not what dataset.json says: delete it and run collect-dataset again.")


def derived_rows(dataset_dir: Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the index as it follows from plan and shards. ShardError for samples that are not in the plan's order."""
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        clips = {clip.key: clip for clip in planned_clips(dataset_dir, split)}
        mine: list[dict[str, Any]] = []
        for shard in sorted(name for name in record["shards"] if name.startswith(f"shards/{split}/")):
            mine += index_rows(dataset_dir / shard, clips, dataset_dir)
        places = {key: place for place, key in enumerate(clips)}
        order = [places[row["key"]] for row in mine]
        if any(one >= following for one, following in pairwise(order)):
            raise ShardError(f"the shards of {split} are not in the plan's order: {RUN_AGAIN}")
        rows += mine
    return rows


def check_index(dataset_dir: Path, record: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    """Raise ShardError unless index.parquet holds these rows and dataset.json its hash."""
    path = dataset_dir / "index.parquet"
    if "index_sha256" in record and read_sha256(path, RUN_AGAIN, ShardError) != record["index_sha256"]:
        raise ShardError(f"{path} is not the index that dataset.json says: {RUN_AGAIN}")
    held = read_parquet(path, RUN_AGAIN, error=ShardError)
    if held != rows:
        pairs = zip(held, rows, strict=False)
        place = next((k for k, (one, other) in enumerate(pairs) if one != other), min(len(held), len(rows)))
        raise ShardError(
            f"{path} has {len(held)} rows and the shards {len(rows)} samples; row {place} is the first that differs: "
            f"{RUN_AGAIN}"
        )
    check_rows(path, rows, record)


def check_missing(dataset_dir: Path, record: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    """Raise ShardError for a planned recording that is neither there nor missing; spare ones may be unused."""
    plan = read_table(dataset_dir / PLAN_FILE, RUN_AGAIN, ("recording_id",), ShardError)
    planned = set(plan["recording_id"].to_pylist())
    silent = sorted(planned - {row["recording_id"] for row in rows} - set(record["missing_recordings"]))
    if silent:
        raise ShardError(f"recording {silent[0]} is neither in the shards nor among the missing: {RUN_AGAIN}")


def promised_truth(dataset_dir: Path) -> dict[str, bool]:
    """Return whether depth and instance ids were planned, by recording; empty for plans that do not say (convert's)."""
    promised: dict[str, bool] = {}
    for path in (dataset_dir / PLAN_FILE, dataset_dir / SPARES_FILE):
        if path.name == PLAN_FILE or path.exists():
            plan = read_table(path, RUN_AGAIN, ("recording_id",), ShardError)
            if "record_ground_truth" in plan.column_names:
                rows = plan.select(["recording_id", "record_ground_truth"]).to_pylist()
                promised |= {row["recording_id"]: row["record_ground_truth"] for row in rows}
    return promised


def check_truth(pair: ClipPair, promised: bool | None, split: str) -> None:
    """Raise ShardError for a pair without the ground truth that was promised, or with one that was not.

    A plan that does not say (None) promises depth in val and test; there instance ids are optional.
    """
    there = {"depth": pair.depth_m is not None, "instance": pair.instance is not None}
    wrong = (split != "train" and not there["depth"]) if promised is None else set(there.values()) != {promised}
    if wrong:
        held = " and ".join(kind for kind, found in there.items() if found) or "none"
        raise ShardError(f"sample {pair.key}: ground truth is missing or was not planned ({held} there): {RUN_AGAIN}")


def adopt(dataset_dir: Path) -> None:
    """Add the index's hash to dataset.json, after everything was found whole."""
    path = dataset_dir / "dataset.json"
    record = read_json(path, RUN_AGAIN, error=ShardError)
    record["index_sha256"] = read_sha256(dataset_dir / "index.parquet", RUN_AGAIN, ShardError)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1))
