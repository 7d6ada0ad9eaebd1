"""Writing shards: each a pure function of the plan and the recorded clips, byte for byte (notes: traps 31 and 32).

Shard k of a split holds the clips k*n .. (k+1)*n-1 of the plan's order. A recording that failed leaves a hole there;
nothing shifts. Spare recordings that stand in for lost ones come after, in shards of their own. The sidecar
`<shard>.json`, renamed last, marks a shard complete and says what it was made from.
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
from tasks.sharding.archive import MEMBER, complete_record, samples_of, write_samples, write_sidecar
from tasks.sharding.contract import check_meta_row, is_count, is_file_name, is_text, read_description
from tasks.sharding.errors import ShardError
from tasks.sharding.index import COPIED, SPLITS, counts_of, digest_of, is_mapping, is_sha256

VERSIONED = ("carla", "numpy", "numba", "av", "imageio-ffmpeg", "webdataset", "pyarrow")
CAMERA_CONVENTION = (
    "cameras.npz: K [A,V,3,3] of the stored view in pixels, pixel centres at +0.5; c2w [A,V,F,4,4] camera to world, "
    "OpenCV axes (x right, y down, z forward), metres; the world is CARLA's with y negated (right-handed, z up). "
    "A = agents, V = front, rear, left, right, F = frames. Videos: 2x2 mosaic, front rear over left right."
)


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


def read_planned(path: Path) -> list[dict[str, Any]]:
    """Return the columns of a plan that shards depend on. ShardError for a damaged plan or an impossible row."""
    advice = "plan the data set anew in a folder of its own."
    rows: list[dict[str, Any]] = (
        read_table(path, advice, (*COPIED, "windows"), ShardError).select([*COPIED, "windows"]).to_pylist()
    )
    for row in rows:
        right = {name: is_text(row[name]) for name in COPIED} | {
            name: is_file_name(row[name]) for name in ("recording_id", "town")
        }
        right["split"] = row["split"] in SPLITS
        right["windows"] = isinstance(row["windows"], list) and all(is_count(k, 0, 10**9) for k in row["windows"])
        wrong = next((name for name, holds in right.items() if not holds), None)
        if wrong is not None:
            raise ShardError(f"{path} says {wrong} {row[wrong]!r:.80}: {advice}")
    return rows


def read_spare(dataset_dir: Path) -> list[dict[str, Any]]:
    """Return the same of the plan's spare rows; none for a plan without."""
    path = dataset_dir / SPARES_FILE
    return read_planned(path) if os.path.lexists(path) else []


def planned_clips(dataset_dir: Path, split: str) -> list[Clip]:
    """Return the split's clips in the plan's order, recorded or not; spare ones come last."""
    return clips_of(dataset_dir, [*read_planned(dataset_dir / PLAN_FILE), *read_spare(dataset_dir)], split)


def clips_of(dataset_dir: Path, rows: Sequence[Mapping[str, Any]], split: str) -> list[Clip]:
    """Return the clips that a split has of the rows of a plan."""
    return [
        Clip(
            f"{row['recording_id']}-{window:03d}",
            dataset_dir / "recordings" / row["recording_id"] / f"w{window:03d}",
            {name: row[name] for name in COPIED} | {"window": window},
        )
        for row in rows
        if row["split"] == split
        for window in row["windows"]
    ]


def source_digest(clips: Sequence[Clip]) -> str:
    """Return a hash of what a shard is made from: keys and the recordings' own records of their files' hashes."""
    records = [(clip, clip.folder.parent / "recording.json") for clip in clips]
    return sha256_bytes(
        canonical_json([[clip.key, read_sha256(path, again(clip), ShardError)] for clip, path in records]).encode()
    )


def again(clip: Clip) -> str:
    return f"delete {clip.folder.parent} and collect again."


def recorded_members(clip: Clip) -> Iterator[tuple[str, bytes]]:
    """Yield a clip's files in order of name. ShardError for one that is not what its recording's record says."""
    path = clip.folder.parent / "recording.json"
    files = read_json(path, again(clip), error=ShardError).get("files")
    if not is_mapping(is_sha256)(files):
        raise ShardError(f"{path} does not say its files and their hashes: {again(clip)}")
    for named, digest in sorted(files.items()):
        folder, _, name = named.partition("/")
        if folder != clip.folder.name:
            continue
        if not MEMBER.fullmatch(name):
            raise ShardError(f"{path} names a file {named!r}, which is none of a clip's: {again(clip)}")
        file = clip.folder / name
        data = read_bytes(file, again(clip), ShardError)
        if sha256_bytes(data) != digest:
            raise ShardError(f"{file} is damaged or gone: {again(clip)}")
        yield name, data


def checked_members(clip: Clip) -> dict[str, bytes]:
    """Return a clip's files by name, in order. ShardError where they do not keep the contract of a clip pair."""
    members = dict(recorded_members(clip))
    meta, _ = read_description(clip.key, members)
    check_meta_row(meta, {"key": clip.key, **clip.row})
    return members


def index_rows(path: Path, clips: Mapping[str, Clip], dataset_dir: Path) -> list[dict[str, Any]]:
    """Return the index's rows of a shard, found from the shard itself. ShardError for a sample that is none of `clips`
    (key -> clip)."""
    rows = []
    for sample in samples_of(path):
        if sample["key"] not in clips:
            raise ShardError(f"{path} holds sample {sample['key']}, which is not planned there: delete it, run again.")
        place = {name: sample[name] for name in ("offset", "bytes", "sha256")}
        row = clips[sample["key"]].row
        rows.append({"key": sample["key"], **row, "shard": str(path.relative_to(dataset_dir)), **place})
    return rows


def kept_rows(path: Path, clips: Sequence[Clip], source: str, dataset_dir: Path) -> list[dict[str, Any]] | None:
    """Return the index's rows of a shard that is complete and holds these clips, else None."""
    if complete_record(path, source) is None:
        return None
    try:
        rows = index_rows(path, {clip.key: clip for clip in clips}, dataset_dir)
    except ShardError:
        return None
    return rows if [row["key"] for row in rows] == [clip.key for clip in clips] else None


def shards_of(
    dataset_dir: Path, split: str, samples_per_shard: int, spares_in_use: Collection[str]
) -> Iterator[tuple[Path, list[Clip], list[str]]]:
    """Yield path, recorded clips and missing recordings of every shard of a split. A spare is never missing."""
    planned = clips_of(dataset_dir, read_planned(dataset_dir / PLAN_FILE), split)
    spare = clips_of(dataset_dir, read_spare(dataset_dir), split)
    chunks = [
        clips[start : start + samples_per_shard]
        for clips in (planned, spare)
        for start in range(0, len(clips), samples_per_shard)
    ]
    names = {clip.row["recording_id"] for clip in planned}
    for number, chunk in enumerate(chunks):
        wanted = [clip for clip in chunk if clip.row["recording_id"] in names.union(spares_in_use)]
        recorded = [clip for clip in wanted if (clip.folder.parent / "recording.json").exists()]
        there = {clip.row["recording_id"] for clip in recorded}
        missing = sorted({clip.row["recording_id"] for clip in chunk} & names - there)
        yield dataset_dir / "shards" / split / f"{split}-{number:06d}.tar", recorded, missing


def write_shards(
    dataset_dir: Path, *, samples_per_shard: int = 32, on_progress: OnProgress = no_progress
) -> ShardSummary:
    """Write what is missing or out of date of shards, index.parquet and dataset.json. Safe to kill and run again."""
    if samples_per_shard < 1:
        raise ShardError(f"samples_per_shard is {samples_per_shard}: give 1 or more.")
    sweep_temporary(dataset_dir)
    reasons, spares = read_ledger(dataset_dir)
    jobs = [job for split in SPLITS for job in shards_of(dataset_dir, split, samples_per_shard, spares)]
    if not any(recorded for _, recorded, _ in jobs):
        raise ShardError(f"{dataset_dir} has no recorded clips: run collect-dataset first.")
    rows: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    hashes: dict[str, str] = {}
    written = 0
    for done, (path, recorded, missing) in enumerate(jobs):
        on_progress(done, len(jobs), path.name)
        absent |= {key: reasons.get(key, "not recorded yet") for key in missing}
        if not recorded:
            for left in (path.with_suffix(".json"), path):  # of spares that have made room for what they stood in for
                left.unlink(missing_ok=True)
            continue
        sweep_temporary(path.parent)
        source = source_digest(recorded)
        found = kept_rows(path, recorded, source, dataset_dir)
        if found is None:
            size = sum(file.stat().st_size for clip in recorded for file in clip.folder.glob("*"))
            require_free_space(path.parent, 2 * size)
            write_samples(path, ((clip.key, checked_members(clip)) for clip in recorded))
            found = index_rows(path, {clip.key: clip for clip in recorded}, dataset_dir)
            write_sidecar(path, source)
            written += 1
        rows += found
        sidecar = read_json(path.with_suffix(".json"), "run collect-dataset again.")
        hashes[str(path.relative_to(dataset_dir))] = sidecar["sha256"]
    on_progress(len(jobs), len(jobs), "")
    digest = write_index(dataset_dir, rows, hashes, absent)
    return ShardSummary(written, len(hashes) - written, len(rows), absent, digest)


def read_ledger(dataset_dir: Path) -> tuple[dict[str, str], list[str]]:
    """Return why recordings are not there, by id, and which spare recordings stand in for those that are lost."""
    if not (dataset_dir / "ledger.sqlite").exists():
        return {}, []
    ledger = Ledger(dataset_dir)
    try:
        lost = ledger.reasons("rejected", "quarantined")
        spares = stand_ins(read_planned(dataset_dir / PLAN_FILE), read_spare(dataset_dir), lost)
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
