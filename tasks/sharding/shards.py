"""Writes shards: each is a pure function of the plan and the recorded clips, byte for byte.

Shard k of a split holds the clips k*n .. (k+1)*n-1 in the plan's order. A failed recording leaves a gap; nothing
shifts. Spare recordings that replace lost ones follow in shards of their own. The sidecar `<shard>.json`, renamed last,
marks a shard complete and says what it was made from (trap 32: temporary names first).
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.mlflow_tracking import git_sha
from infra.reading import read_bytes, read_json, read_sha256, read_table
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
from tasks.planning.rows import PLAN_FILE
from tasks.planning.spares import SPARES_FILE, stand_ins
from tasks.recording.ledger import Ledger
from tasks.sharding.archive import MEMBER_NAME, complete_record, samples_of, write_samples, write_sidecar
from tasks.sharding.contract import check_meta_row, is_count, is_file_name, is_text, read_meta_and_cameras
from tasks.sharding.errors import ShardError
from tasks.sharding.index import PLAN_COLUMNS, SPLITS, counts_of, digest_of, is_mapping, is_sha256

VERSIONED = ("carla", "numpy", "numba", "av", "imageio-ffmpeg", "webdataset", "pyarrow")
CAMERA_CONVENTION = (
    "cameras.npz: K [A,V,3,3] of the stored view in pixels, pixel centres at +0.5; c2w [A,V,F,4,4] camera to world, "
    "OpenCV axes (x right, y down, z forward), metres; the world is CARLA's with y negated (right-handed, z up). "
    "A = agents, V = front, rear, left, right, F = frames. Videos: 2x2 mosaic, front rear over left right."
)


@dataclass(frozen=True)
class PlannedClip:
    """One window of a planned recording: the folder that holds its files once recorded, and its row of the index."""

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
    """Planned recordings without clips: id -> reason."""
    digest: str


def read_plan_columns(path: Path) -> list[dict[str, Any]]:
    """Return the plan's rows with the columns that shards depend on. ShardError where one is impossible."""
    advice = "plan the data set anew in a folder of its own."
    rows: list[dict[str, Any]] = (
        read_table(path, advice, (*PLAN_COLUMNS, "windows"), ShardError).select([*PLAN_COLUMNS, "windows"]).to_pylist()
    )
    for row in rows:
        checks = {name: is_text(row[name]) for name in PLAN_COLUMNS} | {
            name: is_file_name(row[name]) for name in ("recording_id", "town")
        }
        checks["split"] = row["split"] in SPLITS
        checks["windows"] = isinstance(row["windows"], list) and all(is_count(k, 0, 10**9) for k in row["windows"])
        wrong = next((name for name, is_valid in checks.items() if not is_valid), None)
        if wrong is not None:
            raise ShardError(f"{path} says {wrong} {row[wrong]!r:.80}: {advice}")
    return rows


def read_spare_columns(dataset_dir: Path) -> list[dict[str, Any]]:
    """Return the same columns of the plan's spare recordings; none for a plan without spares."""
    path = dataset_dir / SPARES_FILE
    return read_plan_columns(path) if os.path.lexists(path) else []


def planned_clips(dataset_dir: Path, split: str) -> list[PlannedClip]:
    """Return a split's clips in the plan's order, recorded or not; spare ones come last."""
    return clips_of(dataset_dir, [*read_plan_columns(dataset_dir / PLAN_FILE), *read_spare_columns(dataset_dir)], split)


def clips_of(dataset_dir: Path, rows: Sequence[Mapping[str, Any]], split: str) -> list[PlannedClip]:
    """Return a split's clips of these rows of a plan."""
    return [
        PlannedClip(
            f"{row['recording_id']}-{window:03d}",
            dataset_dir / "recordings" / row["recording_id"] / f"w{window:03d}",
            {name: row[name] for name in PLAN_COLUMNS} | {"window": window},
        )
        for row in rows
        if row["split"] == split
        for window in row["windows"]
    ]


def source_digest(clips: Sequence[PlannedClip]) -> str:
    """Return a hash of what a shard is made from: the clips' keys and the hashes of their recording.json."""
    records = [(clip, clip.folder.parent / "recording.json") for clip in clips]
    return sha256_bytes(
        canonical_json(
            [[clip.key, read_sha256(path, collect_again(clip), ShardError)] for clip, path in records]
        ).encode()
    )


def collect_again(clip: PlannedClip) -> str:
    """Return what to do about a damaged recording, for messages."""
    return f"delete {clip.folder.parent} and collect again."


def recorded_members(clip: PlannedClip) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of a clip's files, sorted. ShardError for one that contradicts recording.json."""
    path = clip.folder.parent / "recording.json"
    files = read_json(path, collect_again(clip), error=ShardError).get("files")
    if not is_mapping(is_sha256)(files):
        raise ShardError(f"{path} does not say its files and their hashes: {collect_again(clip)}")
    for path_in_recording, digest in sorted(files.items()):
        folder, _, name = path_in_recording.partition("/")
        if folder != clip.folder.name:
            continue
        if not MEMBER_NAME.fullmatch(name):
            raise ShardError(
                f"{path} names a file {path_in_recording!r}, which is none of a clip's: {collect_again(clip)}"
            )
        file = clip.folder / name
        data = read_bytes(file, collect_again(clip), ShardError)
        if sha256_bytes(data) != digest:
            raise ShardError(f"{file} is damaged or gone: {collect_again(clip)}")
        yield name, data


def checked_members(clip: PlannedClip) -> dict[str, bytes]:
    """Return a clip's files by name, sorted. ShardError where they break the contract of a clip pair."""
    members = dict(recorded_members(clip))
    meta, _ = read_meta_and_cameras(clip.key, members)
    check_meta_row(meta, {"key": clip.key, **clip.row})
    return members


def index_rows(path: Path, clips: Mapping[str, PlannedClip], dataset_dir: Path) -> list[dict[str, Any]]:
    """Derive a shard's rows of the index from the shard itself. ShardError for a sample that is not in `clips`
    (key -> clip)."""
    rows = []
    for sample in samples_of(path):
        if sample["key"] not in clips:
            raise ShardError(f"{path} holds sample {sample['key']}, which is not planned there: delete it, run again.")
        location = {name: sample[name] for name in ("offset", "bytes", "sha256")}
        row = clips[sample["key"]].row
        rows.append({"key": sample["key"], **row, "shard": str(path.relative_to(dataset_dir)), **location})
    return rows


def kept_rows(path: Path, clips: Sequence[PlannedClip], source: str, dataset_dir: Path) -> list[dict[str, Any]] | None:
    """Return the index's rows of a shard that can be kept: it is complete and holds these clips. Else None."""
    if complete_record(path, source) is None:
        return None
    try:
        rows = index_rows(path, {clip.key: clip for clip in clips}, dataset_dir)
    except ShardError:
        return None
    return rows if [row["key"] for row in rows] == [clip.key for clip in clips] else None


def planned_shards(
    dataset_dir: Path, split: str, samples_per_shard: int, spares_in_use: Collection[str]
) -> Iterator[tuple[Path, list[PlannedClip], list[str]]]:
    """Yield path, recorded clips and missing recordings per shard of a split. Spares never count as missing."""
    planned = clips_of(dataset_dir, read_plan_columns(dataset_dir / PLAN_FILE), split)
    spare = clips_of(dataset_dir, read_spare_columns(dataset_dir), split)
    chunks = [
        clips[start : start + samples_per_shard]
        for clips in (planned, spare)
        for start in range(0, len(clips), samples_per_shard)
    ]
    planned_ids = {clip.row["recording_id"] for clip in planned}
    for number, chunk in enumerate(chunks):
        wanted = [clip for clip in chunk if clip.row["recording_id"] in planned_ids.union(spares_in_use)]
        recorded = [clip for clip in wanted if (clip.folder.parent / "recording.json").exists()]
        recorded_ids = {clip.row["recording_id"] for clip in recorded}
        missing = sorted({clip.row["recording_id"] for clip in chunk} & planned_ids - recorded_ids)
        yield dataset_dir / "shards" / split / f"{split}-{number:06d}.tar", recorded, missing


def write_shards(
    dataset_dir: Path, *, samples_per_shard: int = 32, on_progress: OnProgress = no_progress
) -> ShardSummary:
    """Write missing and outdated shards, then index.parquet and dataset.json. Safe to kill and run again.

    ShardError where there are no recorded clips, or recorded files are damaged; StorageError for the disk.
    """
    if samples_per_shard < 1:
        raise ShardError(f"samples_per_shard is {samples_per_shard}: give 1 or more.")
    sweep_temporary(dataset_dir)
    reasons, spares = read_ledger(dataset_dir)
    jobs = [job for split in SPLITS for job in planned_shards(dataset_dir, split, samples_per_shard, spares)]
    if not any(recorded for _, recorded, _ in jobs):
        raise ShardError(f"{dataset_dir} has no recorded clips: run collect-dataset first.")
    rows: list[dict[str, Any]] = []
    missing_reasons: dict[str, str] = {}
    hashes: dict[str, str] = {}
    written = 0
    for done, (path, recorded, missing) in enumerate(jobs):
        on_progress(done, len(jobs), path.name)
        missing_reasons |= {key: reasons.get(key, "not recorded yet") for key in missing}
        if not recorded:
            for unused in (path.with_suffix(".json"), path):  # of spares whose originals were recorded after all
                unused.unlink(missing_ok=True)
            continue
        sweep_temporary(path.parent)
        source = source_digest(recorded)
        shard_rows = kept_rows(path, recorded, source, dataset_dir)
        if shard_rows is None:
            size = sum(file.stat().st_size for clip in recorded for file in clip.folder.glob("*"))
            require_free_space(path.parent, 2 * size)
            write_samples(path, ((clip.key, checked_members(clip)) for clip in recorded))
            shard_rows = index_rows(path, {clip.key: clip for clip in recorded}, dataset_dir)
            write_sidecar(path, source)
            written += 1
        rows += shard_rows
        sidecar = read_json(path.with_suffix(".json"), "run collect-dataset again.")
        hashes[str(path.relative_to(dataset_dir))] = sidecar["sha256"]
    on_progress(len(jobs), len(jobs), "")
    digest = write_index(dataset_dir, rows, hashes, missing_reasons)
    return ShardSummary(written, len(hashes) - written, len(rows), missing_reasons, digest)


def read_ledger(dataset_dir: Path) -> tuple[dict[str, str], list[str]]:
    """Return why recordings are missing (id -> reason), and which spare recordings replace those that are lost."""
    if not (dataset_dir / "ledger.sqlite").exists():
        return {}, []
    ledger = Ledger(dataset_dir)
    try:
        lost = ledger.reasons("rejected", "quarantined")
        spares = stand_ins(read_plan_columns(dataset_dir / PLAN_FILE), read_spare_columns(dataset_dir), lost)
        return lost | ledger.reasons("failed"), spares
    finally:
        ledger.close()


def write_index(dataset_dir: Path, rows: list[dict], hashes: dict[str, str], missing: dict[str, str]) -> str:
    """Write index.parquet and, last, dataset.json; return the data set's digest."""
    plan_sha = sha256_file(dataset_dir / "plan.parquet")
    digest = digest_of(plan_sha, hashes)
    with atomic_file(dataset_dir / "index.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    record = {
        "name": dataset_dir.name,
        "digest": digest,
        "plan_sha256": plan_sha,
        "index_sha256": sha256_file(dataset_dir / "index.parquet"),
        "clips": len(rows),
        "counts": counts_of(rows),
        "missing_recordings": missing,
        "shards": hashes,
        "camera_convention": CAMERA_CONVENTION,
        "git_sha": git_sha(),
        "versions": {name: version(name) for name in VERSIONED} | {"python": platform.python_version()},
    }
    with atomic_file(dataset_dir / "dataset.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1))
    return digest
