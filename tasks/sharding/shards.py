"""Writing shards: each a pure function of the plan and the recorded clips, byte for byte (notes: traps 31 and 32).

Shard k of a split holds the clips k*n .. (k+1)*n-1 of the plan's order. A recording that failed leaves a hole there;
nothing shifts. The sidecar `<shard>.json`, renamed last, marks a shard complete and says what it was made from.
"""

from __future__ import annotations

import io
import json
import platform
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.mlflow_tracking import git_sha
from infra.storage import (
    OnProgress,
    atomic_file,
    canonical_json,
    no_progress,
    require_free_space,
    sha256_bytes,
    sha256_file,
    sweep_temporary,
)
from tasks.recording.ledger import Ledger

SPLITS = ("train", "val", "test")
COPIED = ("recording_id", "scene_id", "variant", "town", "trajectory_type", "weather", "split")
"""Columns of the plan that every row of the index repeats."""
VERSIONED = ("carla", "numpy", "numba", "av", "imageio-ffmpeg", "webdataset", "pyarrow")
CAMERA_CONVENTION = (
    "cameras.npz: K [A,V,3,3] of the stored view in pixels, pixel centres at +0.5; c2w [A,V,F,4,4] camera to world, "
    "OpenCV axes (x right, y down, z forward), metres; the world is CARLA's with y negated (right-handed, z up). "
    "A = agents, V = front, rear, left, right, F = frames. Videos: 2x2 mosaic, front rear over left right."
)


class ShardError(RuntimeError):
    """A shard or a recorded clip is missing, incomplete or not what its hash says."""


@dataclass(frozen=True)
class Clip:
    """One window of one recording: the folder its members lie in, and its row of the index."""

    key: str
    folder: Path
    row: dict[str, Any]


@dataclass(frozen=True)
class ShardSummary:
    """What `write_shards` did."""

    written: int
    kept: int
    clips: int
    missing: dict[str, str]
    """Recordings of the plan that have no clips -> why."""
    digest: str


def planned_clips(dataset_dir: Path, split: str) -> list[Clip]:
    """Return the split's clips in the plan's order, recorded or not."""
    plan = pq.read_table(dataset_dir / "plan.parquet", columns=[*COPIED, "windows"]).to_pylist()
    return [
        Clip(
            f"{row['recording_id']}-{window:03d}",
            dataset_dir / "recordings" / row["recording_id"] / f"w{window:03d}",
            {name: row[name] for name in COPIED} | {"window": window},
        )
        for row in plan
        if row["split"] == split
        for window in row["windows"]
    ]


def source_digest(clips: Sequence[Clip]) -> str:
    """Return a hash of what a shard is made from: keys and the recordings' own records of their files' hashes."""
    return sha256_bytes(
        canonical_json([[clip.key, sha256_file(clip.folder.parent / "recording.json")] for clip in clips]).encode()
    )


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a member with nothing in its header that differs between machines or days."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o644, 0
    member.uid = member.gid = 0
    member.uname = member.gname = "shareverse"
    tar.addfile(member, io.BytesIO(data))


def recorded_members(clip: Clip) -> Iterator[tuple[str, bytes]]:
    """Yield a clip's files in order of name. ShardError for one that is not what its recording's record says."""
    files = json.loads((clip.folder.parent / "recording.json").read_text())["files"]
    for path, digest in sorted(files.items()):
        folder, _, name = path.partition("/")
        if folder != clip.folder.name:
            continue
        file = clip.folder / name
        data = file.read_bytes() if file.is_file() else b""
        if sha256_bytes(data) != digest:
            raise ShardError(f"{file} is damaged or gone: delete {clip.folder.parent} and collect again.")
        yield name, data


def write_shard(path: Path, clips: Sequence[Clip], dataset_dir: Path) -> list[dict[str, Any]]:
    """Write one tar and return its rows of the index. ShardError names a clip without members."""
    rows = []
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for clip in clips:
                start = tar.offset
                for name, data in recorded_members(clip):
                    add_member(tar, f"{clip.key}.{name}", data)
                rows.append(
                    {"key": clip.key, **clip.row, "shard": str(path.relative_to(dataset_dir)), "offset": start,
                     "bytes": tar.offset - start}
                )  # fmt: skip
        file.flush()
        written = temporary.read_bytes()
        for row in rows:
            row["sha256"] = sha256_bytes(written[row["offset"] : row["offset"] + row["bytes"]])
    return rows


def complete_rows(path: Path, source: str) -> list[dict[str, Any]] | None:
    """Return the index rows of a shard that is complete and made from `source`, else None."""
    sidecar = path.with_suffix(".json")
    if not sidecar.exists() or not path.exists():
        return None
    record = json.loads(sidecar.read_text())
    return record["rows"] if record["source"] == source and record["sha256"] == sha256_file(path) else None


def shards_of(dataset_dir: Path, split: str, samples_per_shard: int) -> Iterator[tuple[Path, list[Clip], list[str]]]:
    """Yield path, recorded clips and missing recordings of every shard of a split."""
    clips = planned_clips(dataset_dir, split)
    for number, start in enumerate(range(0, len(clips), samples_per_shard)):
        planned = clips[start : start + samples_per_shard]
        recorded = [clip for clip in planned if (clip.folder.parent / "recording.json").exists()]
        missing = sorted({clip.row["recording_id"] for clip in planned} - {c.row["recording_id"] for c in recorded})
        yield dataset_dir / "shards" / split / f"{split}-{number:06d}.tar", recorded, missing


def write_shards(
    dataset_dir: Path, *, samples_per_shard: int = 32, on_progress: OnProgress = no_progress
) -> ShardSummary:
    """Write what is missing or out of date of shards, index.parquet and dataset.json. Safe to kill and run again."""
    if samples_per_shard < 1:
        raise ShardError(f"samples_per_shard is {samples_per_shard}: give 1 or more.")
    sweep_temporary(dataset_dir)
    jobs = [job for split in SPLITS for job in shards_of(dataset_dir, split, samples_per_shard)]
    if not any(recorded for _, recorded, _ in jobs):
        raise ShardError(f"{dataset_dir} has no recorded clips: run collect-dataset first.")
    rows: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    hashes: dict[str, str] = {}
    written = 0
    for done, (path, recorded, missing) in enumerate(jobs):
        on_progress(done, len(jobs), path.name)
        absent |= dict.fromkeys(missing, "not recorded yet")
        if not recorded:
            continue
        sweep_temporary(path.parent)
        source = source_digest(recorded)
        found = complete_rows(path, source)
        if found is None:
            size = sum(file.stat().st_size for clip in recorded for file in clip.folder.iterdir())
            require_free_space(path.parent, 2 * size)
            found = write_shard(path, recorded, dataset_dir)
            record = {"source": source, "sha256": sha256_file(path), "rows": found}
            with atomic_file(path.with_suffix(".json")) as temporary:
                temporary.write_text(json.dumps(record))
            written += 1
        rows += found
        hashes[str(path.relative_to(dataset_dir))] = json.loads(path.with_suffix(".json").read_text())["sha256"]
    on_progress(len(jobs), len(jobs), "")
    absent |= {key: why for key, why in failure_reasons(dataset_dir).items() if key in absent}
    digest = write_index(dataset_dir, rows, hashes, absent)
    return ShardSummary(written, len(hashes) - written, len(rows), absent, digest)


def failure_reasons(dataset_dir: Path) -> dict[str, str]:
    """Return why recordings are not there, by id, from the ledger."""
    if not (dataset_dir / "ledger.sqlite").exists():
        return {}
    ledger = Ledger(dataset_dir)
    try:
        return ledger.reasons("rejected", "failed")
    finally:
        ledger.close()


def write_index(dataset_dir: Path, rows: list[dict], hashes: dict[str, str], missing: dict[str, str]) -> str:
    """Write index.parquet and, last, dataset.json; return the data set's digest."""
    plan_sha = sha256_file(dataset_dir / "plan.parquet")
    digest = sha256_bytes(canonical_json({"plan": plan_sha, "shards": hashes}).encode())
    with atomic_file(dataset_dir / "index.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    counts = {name: dict(sorted(Counter(row[name] for row in rows).items())) for name in
              ("split", "town", "trajectory_type", "weather", "variant")}  # fmt: skip
    record = {
        "name": dataset_dir.name,
        "digest": digest,
        "plan_sha256": plan_sha,
        "clips": len(rows),
        "counts": counts,
        "missing_recordings": missing,
        "shards": hashes,
        "camera_convention": CAMERA_CONVENTION,
        "git_sha": git_sha(),
        "versions": {name: version(name) for name in VERSIONED} | {"python": platform.python_version()},
    }
    with atomic_file(dataset_dir / "dataset.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1))
    return digest
