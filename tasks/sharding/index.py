"""dataset.json and index.parquet: what a data set says of itself, checked before anything of it is believed.

The digest names the data: a hash of the plan's hash and the shards' hashes. dataset.json holds the index's hash too, so
that an index that was changed is refused; `verify` derives the index anew from plan and shards.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.reading import read_json, read_parquet, read_part, read_sha256
from infra.storage import canonical_json, sha256_bytes
from tasks.sharding.archive import BLOCK, members_of
from tasks.sharding.contract import check_meta_row, is_count, is_file_name, is_text, read_description
from tasks.sharding.errors import ShardError

SPLITS = ("train", "val", "test")
COPIED = ("recording_id", "scene_id", "variant", "town", "trajectory_type", "weather", "split")
"""Columns of the plan that every row of the index repeats."""
COUNTED = ("split", "town", "trajectory_type", "weather", "variant")
RUN_AGAIN = "run collect-dataset again (of a converted data set: convert), which keeps what is whole."
SHA256 = re.compile(r"[0-9a-f]{64}")
SHARD = re.compile(r"shards/(train|val|test)/\1-\d{6,}\.tar")
MOST_BYTES = 2**50


def digest_of(plan_sha256: str, shards: Mapping[str, str]) -> str:
    """Return the digest that names a data set: a hash of its plan and its shards (path -> sha256)."""
    return sha256_bytes(canonical_json({"plan": plan_sha256, "shards": dict(shards)}).encode())


def counts_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return how many rows have each split, town, trajectory type, weather and variant."""
    return {name: dict(sorted(Counter(row[name] for row in rows).items())) for name in COUNTED}


def is_sha256(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def is_mapping(of: Callable[[Any], bool], keys: Callable[[Any], bool] = is_text) -> Callable[[Any], bool]:
    """Return a check for a JSON object with such keys and such values."""
    return lambda value: isinstance(value, dict) and all(keys(k) and of(v) for k, v in value.items())


def is_shard_name(value: Any) -> bool:
    return isinstance(value, str) and SHARD.fullmatch(value) is not None


RECORD: dict[str, Callable[[Any], bool]] = {
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
"""Keys of dataset.json and what holds of their values."""
ROW: dict[str, Callable[[Any], bool]] = {
    "key": is_file_name,
    "recording_id": is_file_name,
    "town": is_file_name,
    **dict.fromkeys(("scene_id", "variant", "trajectory_type", "weather"), is_text),
    "split": lambda value: value in SPLITS,
    "window": lambda value: is_count(value, 0, 10**9),
    "shard": is_shard_name,
    "offset": lambda value: is_count(value, 0, MOST_BYTES) and value % BLOCK == 0,
    "bytes": lambda value: is_count(value, BLOCK, MOST_BYTES) and value % BLOCK == 0,
    "sha256": is_sha256,
}
"""Columns of index.parquet and what holds of their values."""


def read_record(dataset_dir: Path) -> dict[str, Any]:
    """Return dataset.json. ShardError for a data set that is not finished, or whose record was changed."""
    path = dataset_dir / "dataset.json"
    if not path.exists():
        raise ShardError(f"{dataset_dir} is no finished data set (no dataset.json): run collect-dataset first.")
    record: dict[str, Any] = read_json(path, RUN_AGAIN, error=ShardError)
    for name, right in RECORD.items():
        if name not in record or not right(record[name]):
            said = f"says {name} {record[name]!r:.80}" if name in record else f"does not say {name!r}"
            raise ShardError(f"{path} {said}: {RUN_AGAIN}")
    if digest_of(record["plan_sha256"], record["shards"]) != record["digest"]:
        raise ShardError(f"{path} says digest {record['digest'][:12]}, which is not that of its shards: {RUN_AGAIN}")
    if not is_sha256(record.get("index_sha256", "0" * 64)):
        raise ShardError(f"{path} says index_sha256 {record['index_sha256']!r:.80}: {RUN_AGAIN}")
    return record


def read_rows(dataset_dir: Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return index.parquet's rows. ShardError when they are not those that dataset.json says, or contradict it."""
    path = dataset_dir / "index.parquet"
    if read_sha256(path, RUN_AGAIN, ShardError) != record.get("index_sha256"):
        if "index_sha256" in record:
            raise ShardError(f"{path} is not the index that dataset.json says: {RUN_AGAIN}")
        raise ShardError(
            f"{dataset_dir} was written before dataset.json held the index's hash: run `python -m tasks.sharding "
            f"verify {dataset_dir}` once, which checks everything and writes it down."
        )
    rows = read_parquet(path, RUN_AGAIN, tuple(ROW), ShardError)
    check_rows(path, rows, record)
    return rows


def check_rows(path: Path, rows: Sequence[dict[str, Any]], record: Mapping[str, Any]) -> None:
    """Raise ShardError for rows that are impossible, or not as many of everything as dataset.json says."""
    ends: dict[str, int] = {}
    for row in rows:
        wrong = next((name for name, right in ROW.items() if not right(row[name])), None)
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

    def __init__(self, dataset_dir: Path) -> None:
        """Read dataset.json and index.parquet. ShardError when one was changed, or is not there."""
        self.dataset_dir = Path(dataset_dir)
        self.record = read_record(self.dataset_dir)
        self.digest: str = self.record["digest"]
        self.rows = read_rows(self.dataset_dir, self.record)

    def split(self, split: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["split"] == split]

    def whole(self, split: str) -> list[dict[str, Any]]:
        """Return a split's clips without those of one frame, which only check hidden-fact scenes for leaks."""
        single = {"repeat", "fact_changed"} if split == "train" else {"repeat"}
        return [row for row in self.split(split) if row["variant"] not in single]

    def read(self, row: Mapping[str, Any]) -> dict[str, bytes]:
        """Return a row's members, with meta.json and cameras checked against the contract and the row.

        ShardError when the bytes are not those that were written, or contradict themselves.
        """
        return read_members(self.dataset_dir, row)


def read_members(dataset_dir: Path, row: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the members of a row's sample, checked as `ClipIndex.read` says."""
    data = read_part(dataset_dir / row["shard"], row["offset"], row["bytes"], RUN_AGAIN, ShardError)
    if sha256_bytes(data) != row["sha256"]:
        raise ShardError(f"{row['shard']} is corrupt at sample {row['key']}: delete it and collect again.")
    members = members_of(data, row["key"])
    meta, _ = read_description(row["key"], members)
    check_meta_row(meta, row)
    return members
