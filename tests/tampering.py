"""Data sets that somebody changed, bringing every hash up to date: only what they say can give them away."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.storage import sha256_file
from tasks.recording.encode import write_npz
from tasks.sharding.archive import add_member, members_of, samples_of
from tasks.sharding.shards import write_index

Members = dict[str, bytes]


def copy_of(dataset_dir: Path, target: Path) -> Path:
    """Copy a data set's record, plan, index and shards."""
    ignored = shutil.ignore_patterns("recordings", "latents", "logs", "dataset_card", "ledger.*")
    return shutil.copytree(dataset_dir, target, ignore=ignored)


def change_record(dataset_dir: Path, **changes: Any) -> None:
    path = dataset_dir / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=1))


def index_of(dataset_dir: Path) -> list[dict[str, Any]]:
    return pq.read_table(dataset_dir / "index.parquet").to_pylist()


def write_rows(dataset_dir: Path, rows: list[dict[str, Any]]) -> None:
    """Write another index, and bring dataset.json's hash, counts and number of clips up to date."""
    record = json.loads((dataset_dir / "dataset.json").read_text())
    write_index(dataset_dir, rows, record["shards"], record["missing_recordings"])


def change_sample(dataset_dir: Path, change: Callable[[Members], None], split: str = "test") -> str:
    """Change the members of a split's first sample, then everything that hashes them; return its key."""
    rows, record = index_of(dataset_dir), json.loads((dataset_dir / "dataset.json").read_text())
    shard = next(row["shard"] for row in rows if row["split"] == split)
    path = dataset_dir / shard
    data = path.read_bytes()
    samples = [(s["key"], members_of(data[s["offset"] : s["offset"] + s["bytes"]], s["key"])) for s in samples_of(path)]
    change(samples[0][1])
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            for name in sorted(members):
                add_member(tar, f"{key}.{name}", members[name])
    found = {sample["key"]: sample for sample in samples_of(path)}
    rows = [row | found[row["key"]] if row["shard"] == shard else row for row in rows]
    write_index(dataset_dir, rows, record["shards"] | {shard: sha256_file(path)}, record["missing_recordings"])
    return samples[0][0]


def cameras(change: Callable[[dict[str, np.ndarray]], None]) -> Callable[[Members], None]:
    """Return a change of cameras.npz's arrays."""

    def changed(members: Members) -> None:
        with np.load(io.BytesIO(members["cameras.npz"])) as archive:
            arrays = {name: archive[name].copy() for name in archive.files}
        change(arrays)
        members["cameras.npz"] = npz(arrays)

    return changed


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    write_npz(buffer, arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def meta(**changes: Any) -> Callable[[Members], None]:
    """Return a change of meta.json's values; None takes one away."""

    def changed(members: Members) -> None:
        values = json.loads(members["meta.json"]) | changes
        members["meta.json"] = json.dumps({k: v for k, v in values.items() if v is not None}).encode()

    return changed


def change_plan(dataset_dir: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the plan's rows and bring the digest up to date."""
    path = dataset_dir / "plan.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    write_rows(dataset_dir, index_of(dataset_dir))
