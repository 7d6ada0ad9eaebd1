"""dataset.json and index.parquet: a data set's record and index, checked before they are used.

The digest names the data: it is a hash of the plan's and the shards' hashes. dataset.json also holds the index's hash,
so that a changed index is refused; `verify` derives the index again from plan and shards.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.places import NotThereError, Place
from infra.reading import read_json, read_parquet, read_part, read_sha256
from infra.storage import canonical_json, sha256_bytes
from tasks.sharding.archive import BLOCK, members_of
from tasks.sharding.contract import check_meta_row, is_count, is_file_name, is_text, read_meta_and_cameras
from tasks.sharding.errors import ShardError

SPLITS = ("train", "val", "test")
PLAN_COLUMNS = ("recording_id", "scene_id", "variant", "town", "trajectory_type", "weather", "split")
"""Columns of the plan that are copied into the index."""
COUNTED_COLUMNS = ("split", "town", "trajectory_type", "weather", "variant")
RUN_AGAIN = "run collect-dataset again (of a converted data set: convert), which keeps what is whole."
SHA256 = re.compile(r"[0-9a-f]{64}")
SHARD_NAME = re.compile(r"shards/(train|val|test)/\1-\d{6,}\.tar")
MAX_SHARD_BYTES = 2**50


def digest_of(plan_sha256: str, shards: Mapping[str, str]) -> str:
    """Return the digest that names a data set: a hash of its plan and its shards (path -> sha256)."""
    return sha256_bytes(canonical_json({"plan": plan_sha256, "shards": dict(shards)}).encode())


def counts_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the number of rows per split, town, trajectory type, weather and variant: column -> value -> rows."""
    return {name: dict(sorted(Counter(row[name] for row in rows).items())) for name in COUNTED_COLUMNS}


def is_sha256(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def is_mapping(is_item: Callable[[Any], bool], is_key: Callable[[Any], bool] = is_text) -> Callable[[Any], bool]:
    """Return a check for a JSON object whose keys and values pass these checks."""
    return lambda value: isinstance(value, dict) and all(is_key(k) and is_item(v) for k, v in value.items())


def is_shard_name(value: Any) -> bool:
    return isinstance(value, str) and SHARD_NAME.fullmatch(value) is not None


RECORD_CHECKS: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "digest": is_sha256,
    "plan_sha256": is_sha256,
    "clips": lambda value: is_count(value, 1, 10**9),
    "counts": is_mapping(is_mapping(lambda count: is_count(count, 1, 10**9))),
    "missing_recordings": is_mapping(lambda reason: isinstance(reason, str)),
    "shards": is_mapping(is_sha256, is_shard_name),
    "camera_convention": lambda value: isinstance(value, str),
    "git_sha": lambda value: isinstance(value, str),
    "versions": is_mapping(lambda number: isinstance(number, str)),
}
"""Keys of dataset.json and the checks of their values."""
ROW_CHECKS: dict[str, Callable[[Any], bool]] = {
    "key": is_file_name,
    "recording_id": is_file_name,
    "town": is_file_name,
    **dict.fromkeys(("scene_id", "variant", "trajectory_type", "weather"), is_text),
    "split": lambda value: value in SPLITS,
    "window": lambda value: is_count(value, 0, 10**9),
    "shard": is_shard_name,
    "offset": lambda value: is_count(value, 0, MAX_SHARD_BYTES) and value % BLOCK == 0,
    "bytes": lambda value: is_count(value, BLOCK, MAX_SHARD_BYTES) and value % BLOCK == 0,
    "sha256": is_sha256,
}
"""Columns of index.parquet and the checks of their values."""


def read_dataset_record(place: Place) -> dict[str, Any]:
    """Return dataset.json. ShardError for a data set that is not finished, or whose record was altered."""
    unfinished = f"{place} is no finished data set (no dataset.json): run collect-dataset first."
    try:
        path = place.fetch("dataset.json")
    except NotThereError as error:
        raise ShardError(unfinished) from error
    if not path.exists():
        raise ShardError(unfinished)
    record: dict[str, Any] = read_json(path, RUN_AGAIN, error=ShardError)
    for name, is_valid in RECORD_CHECKS.items():
        if name not in record or not is_valid(record[name]):
            said = f"says {name} {record[name]!r:.80}" if name in record else f"does not say {name!r}"
            raise ShardError(f"{path} {said}: {RUN_AGAIN}")
    if digest_of(record["plan_sha256"], record["shards"]) != record["digest"]:
        raise ShardError(f"{path} says digest {record['digest'][:12]}, which is not that of its shards: {RUN_AGAIN}")
    if not is_sha256(record.get("index_sha256", "0" * 64)):
        raise ShardError(f"{path} says index_sha256 {record['index_sha256']!r:.80}: {RUN_AGAIN}")
    return record


def read_rows(place: Place, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return index.parquet's rows. ShardError where the file's hash or content contradicts dataset.json."""
    path = place.fetch("index.parquet", record.get("index_sha256", ""))
    if read_sha256(path, RUN_AGAIN, ShardError) != record.get("index_sha256"):
        if "index_sha256" in record:
            raise ShardError(f"{path} is not the index that dataset.json says: {RUN_AGAIN}")
        raise ShardError(
            f"{place} was written before dataset.json held the index's hash: run `python -m tasks.sharding "
            f"verify {place}` once, which checks everything and writes it down."
        )
    rows = read_parquet(path, RUN_AGAIN, tuple(ROW_CHECKS), ShardError)
    check_rows(path, rows, record)
    return rows


def check_rows(path: Path, rows: Sequence[dict[str, Any]], record: Mapping[str, Any]) -> None:
    """Raise ShardError for impossible rows, and where shards or counts are not those of dataset.json."""
    ends: dict[str, int] = {}
    for row in rows:
        wrong = next((name for name, is_valid in ROW_CHECKS.items() if not is_valid(row[name])), None)
        if wrong is not None:
            raise ShardError(f"{path} says {wrong} {row[wrong]!r:.80}: {RUN_AGAIN}")
        if row["key"] != f"{row['recording_id']}-{row['window']:03d}" or row["offset"] != ends.get(row["shard"], 0):
            raise ShardError(f"{path} has sample {row['key']} where another belongs: {RUN_AGAIN}")
        if row["shard"] not in record["shards"] or row["shard"].split("/")[1] != row["split"]:
            raise ShardError(f"{path} has sample {row['key']} in {row['shard']}, where it is not: {RUN_AGAIN}")
        ends[row["shard"]] = row["offset"] + row["bytes"]
    if len({row["key"] for row in rows}) != record["clips"] or len(rows) != record["clips"]:
        raise ShardError(f"{path} has {len(rows)} rows and dataset.json says {record['clips']} clips: {RUN_AGAIN}")
    if set(ends) != set(record["shards"]):
        raise ShardError(f"{path} has rows of {len(ends)} shards of {len(record['shards'])}: {RUN_AGAIN}")
    if counts_of(rows) != record["counts"]:
        raise ShardError(f"{path} has other counts than dataset.json: {RUN_AGAIN}")


class ClipIndex:
    """The index of a data set: rows in the plan's order, and the digest that names the data."""

    def __init__(self, dataset: Place | Path | str) -> None:
        """Read dataset.json and index.parquet of a place: a path or a URL.

        ShardError when one is missing or was altered, PlaceError for a URL that cannot be read.
        """
        self.place = Place.of(dataset)
        self.dataset_dir = self.place.folder
        self.record = read_dataset_record(self.place)
        self.digest: str = self.record["digest"]
        self.rows = read_rows(self.place, self.record)

    def split(self, split: str) -> list[dict[str, Any]]:
        """Return the rows of a split, in the plan's order."""
        return [row for row in self.rows if row["split"] == split]

    def whole(self, split: str) -> list[dict[str, Any]]:
        """Return the rows of a split's whole clips.

        Left out are clips of a single frame, which only serve to check hidden-fact scenes for leaks.
        """
        single_frame = {"repeat", "fact_changed"} if split == "train" else {"repeat"}
        return [row for row in self.split(split) if row["variant"] not in single_frame]

    def read(self, row: Mapping[str, Any]) -> dict[str, bytes]:
        """Return the members of a row's sample by name; meta.json and cameras are checked.

        ShardError when the bytes are not those that were written, break the contract or contradict the row.
        """
        return read_members(self.place, row, self.record["shards"][row["shard"]])


def read_members(place: Place, row: Mapping[str, Any], shard_sha256: str) -> dict[str, bytes]:
    """Return the members of a row's sample by name. See `ClipIndex.read`."""
    with place.hold(row["shard"], shard_sha256) as path:
        data = read_part(path, row["offset"], row["bytes"], RUN_AGAIN, ShardError)
    if sha256_bytes(data) != row["sha256"]:
        if place.url:
            place.forget(row["shard"])
            raise ShardError(
                f"{path} is a damaged copy of {place.where(row['shard'])} at sample {row['key']}: run again, which "
                "fetches it anew."
            )
        raise ShardError(f"{row['shard']} is corrupt at sample {row['key']}: delete it and collect again.")
    members = members_of(data, row["key"])
    meta, _ = read_meta_and_cameras(row["key"], members)
    check_meta_row(meta, row)
    return members
