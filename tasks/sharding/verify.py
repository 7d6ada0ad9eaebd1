"""`verify` reads everything again: the plan's and the shards' hashes, the index, every sample's members and pictures.

The index is derived again from the plan and the shards, whose hashes make the digest, and compared with index.parquet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from infra.places import NotThereError, Place
from infra.reading import read_json, read_parquet, read_sha256, read_table
from infra.storage import OnProgress, atomic_file, no_progress
from tasks.planning.rows import PLAN_FILE
from tasks.planning.spares import SPARES_FILE
from tasks.sharding.errors import ShardError
from tasks.sharding.index import RUN_AGAIN, SPLITS, check_rows, read_dataset_record, read_members
from tasks.sharding.reader import ClipPair, read_pair
from tasks.sharding.shards import index_rows, planned_clips


def verify(dataset: Place | Path | str, *, on_progress: OnProgress = no_progress) -> int:
    """Read every sample of every shard of a place; return their number. ShardError names the first fault's shard and
    key, PlaceError a file at a URL that cannot be read or is not what it should be.

    Of a URL, every object's size and etag are compared with those of its copy, and what differs is fetched anew. In a
    folder whose dataset.json does not hold the index's hash yet, it is added once everything has proved intact.
    """
    place = Place.of(dataset)
    record, dataset_dir = read_dataset_record(place), place.folder
    fetch_tables(place, record)
    check_hashes(place, record)
    rows = derived_rows(place, record)
    check_index(dataset_dir, record, rows)
    check_missing(dataset_dir, record, rows)
    planned = planned_ground_truth(dataset_dir)
    for done, row in enumerate(rows):
        on_progress(done, len(rows), row["key"])
        pair = read_pair(row["key"], read_members(place, row, record["shards"][row["shard"]]))
        check_ground_truth(pair, planned.get(row["recording_id"]), row["split"])
    on_progress(len(rows), len(rows), "")
    if "index_sha256" not in record and not place.url:
        add_index_hash(dataset_dir)
    return len(rows)


def fetch_tables(place: Place, record: Mapping[str, Any]) -> None:
    """Fetch the tables that shards and index are compared with; a plan need not have spares."""
    place.fetch(PLAN_FILE, record["plan_sha256"])
    place.fetch("index.parquet", record.get("index_sha256", ""))
    try:
        place.fetch(SPARES_FILE)
    except NotThereError:
        (place.folder / SPARES_FILE).unlink(missing_ok=True)


def check_hashes(place: Place, record: Mapping[str, Any]) -> None:
    """Raise ShardError unless plan and shards have the hashes in dataset.json, which make the digest."""
    if read_sha256(place.folder / PLAN_FILE, RUN_AGAIN, ShardError) != record["plan_sha256"]:
        raise ShardError(f"plan.parquet is not what dataset.json says: {RUN_AGAIN}")
    for shard, digest in record["shards"].items():
        place.compare(shard)
        with place.hold(shard, digest) as path:
            found = read_sha256(path, RUN_AGAIN, ShardError)
        if found != digest and place.url:
            place.forget(shard)
            raise ShardError(f"{path} is a damaged copy of {place.where(shard)}: run again, which fetches it anew.")
        if found != digest:
            raise ShardError(f"{shard} is not what dataset.json says: delete it and run collect-dataset again.")


def derived_rows(place: Place, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Derive the index's rows from plan and shards. ShardError for samples that are not in the plan's order."""
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        clips = {clip.key: clip for clip in planned_clips(place.folder, split)}
        split_rows: list[dict[str, Any]] = []
        for shard in sorted(name for name in record["shards"] if name.startswith(f"shards/{split}/")):
            with place.hold(shard, record["shards"][shard]) as path:
                split_rows += index_rows(path, clips, place.folder)
        positions = {key: position for position, key in enumerate(clips)}
        order = [positions[row["key"]] for row in split_rows]
        if any(position >= following for position, following in pairwise(order)):
            raise ShardError(f"the shards of {split} are not in the plan's order: {RUN_AGAIN}")
        rows += split_rows
    return rows


def check_index(dataset_dir: Path, record: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    """Raise ShardError unless index.parquet holds these rows and dataset.json its hash."""
    path = dataset_dir / "index.parquet"
    if "index_sha256" in record and read_sha256(path, RUN_AGAIN, ShardError) != record["index_sha256"]:
        raise ShardError(f"{path} is not the index that dataset.json says: {RUN_AGAIN}")
    indexed = read_parquet(path, RUN_AGAIN, error=ShardError)
    if indexed != rows:
        pairs = zip(indexed, rows, strict=False)
        first = next((k for k, (one, other) in enumerate(pairs) if one != other), min(len(indexed), len(rows)))
        raise ShardError(
            f"{path} has {len(indexed)} rows and the shards {len(rows)} samples; row {first} is the first that "
            f"differs: {RUN_AGAIN}"
        )
    check_rows(path, rows, record)


def check_missing(dataset_dir: Path, record: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    """Raise ShardError for a planned recording that is neither in the index nor recorded as missing. Spares may be
    unused."""
    plan = read_table(dataset_dir / PLAN_FILE, RUN_AGAIN, ("recording_id",), ShardError)
    planned = set(plan["recording_id"].to_pylist())
    lost = sorted(planned - {row["recording_id"] for row in rows} - set(record["missing_recordings"]))
    if lost:
        raise ShardError(f"recording {lost[0]} is neither in the shards nor among the missing: {RUN_AGAIN}")


def planned_ground_truth(dataset_dir: Path) -> dict[str, bool]:
    """Return recording id -> whether ground truth was planned; empty for plans that do not say, as `convert`'s."""
    planned: dict[str, bool] = {}
    for path in (dataset_dir / PLAN_FILE, dataset_dir / SPARES_FILE):
        if path.name == PLAN_FILE or path.exists():
            plan = read_table(path, RUN_AGAIN, ("recording_id",), ShardError)
            if "record_ground_truth" in plan.column_names:
                rows = plan.select(["recording_id", "record_ground_truth"]).to_pylist()
                planned |= {row["recording_id"]: row["record_ground_truth"] for row in rows}
    return planned


def check_ground_truth(pair: ClipPair, planned: bool | None, split: str) -> None:
    """Raise ShardError for a pair that lacks planned ground truth, or has some that was not planned.

    Where the plan does not say (None), val and test need depth, and instance ids are optional.
    """
    present = {"depth": pair.depth_m is not None, "instance": pair.instance is not None}
    wrong = (split != "train" and not present["depth"]) if planned is None else set(present.values()) != {planned}
    if wrong:
        kinds = " and ".join(kind for kind, is_present in present.items() if is_present) or "none"
        raise ShardError(f"sample {pair.key}: ground truth is missing or was not planned ({kinds} there): {RUN_AGAIN}")


def add_index_hash(dataset_dir: Path) -> None:
    """Add the index's hash to dataset.json."""
    path = dataset_dir / "dataset.json"
    record = read_json(path, RUN_AGAIN, error=ShardError)
    record["index_sha256"] = read_sha256(dataset_dir / "index.parquet", RUN_AGAIN, ShardError)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1))
