"""Filling the latent cache: a pool of Ray actors, one latent shard per data shard, nothing encoded twice."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from infra.actor_pool import (
    ActorPool,
    Answer,
    ItemQueue,
    ItemTimeout,
    Limits,
    Needs,
    PoolActor,
    PoolError,
    assigned_cores,
    await_nodes,
)
from infra.locks import hold_lock
from infra.ray_cluster import ray_cluster
from infra.storage import (
    OnProgress,
    StorageError,
    atomic_dir,
    atomic_file,
    make_folder,
    no_progress,
    require_free_space,
    sha256_bytes,
    sha256_file,
    sweep_temporary,
)
from model.codec import LINEAR_CODEC_FOLDER, Codec, CodecError, LinearCodec, fitted_codec_folder, load_codec
from model.presets import Preset
from tasks.encoding.frames import model_video
from tasks.encoding.latents import (
    COLUMNS,
    FIT_CLIPS,
    INDEX,
    RECORD,
    SPLITS,
    EncodingError,
    encode_clip,
    latents_key,
    place,
    read_cache,
    split_starts,
    what_determines,
)
from tasks.runs.run import Run
from tasks.sharding.archive import complete_record, samples_of, write_samples, write_sidecar
from tasks.sharding.errors import ShardError
from tasks.sharding.reader import ClipIndex, read_pair

LOG = logging.getLogger(__name__)
CLIP_FRAMES = 49
"""Of an ordinary clip, to estimate disk space."""
LIMITS = Limits(start_s=900.0, attempts=1, actors_lost=3, died="the process of {name} died.")
"""Encoding draws nothing at random: what fails in a process that lives would fail again."""
SETUP_TIMEOUT_S, UNKNOWN_CLIP_S = 300.0, 1800.0
"""Timeout of a shard, and of each of its clips while no rate is known."""


@dataclass(frozen=True)
class ShardJob:
    """One latent shard: the clips of one data shard."""

    split: str
    path: str
    """Relative to the cache's folder."""
    clips: tuple[dict[str, Any], ...]
    """Rows of the data set's index."""
    source: str
    """Hash of what the shard is made from."""


def shard_jobs(index: ClipIndex, key: str) -> list[ShardJob]:
    """Return the latent shards of a data set in its order."""
    shards: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        for row in index.whole(split):
            shards.setdefault(row["shard"], []).append(row)
    return [
        ShardJob(rows[0]["split"], shard, tuple(rows), sha256_bytes(f"{key} {index.record['shards'][shard]}".encode()))
        for shard, rows in shards.items()
    ]


def encode_dataset(
    dataset_dir: Path, preset: Preset, *, workers: int = 0, on_progress: OnProgress = no_progress
) -> Path:
    """Encode what is missing of the train and val windows; return the cache's folder. Safe to kill and run again.

    `workers` 0: one per core, or one per GPU where Ray has some. ShardError for a data set that is not finished,
    EncodingError for one without training clips, CodecError for a codec that cannot be loaded.
    """
    index = ClipIndex(dataset_dir)
    key = latents_key(index.digest, preset)
    folder = index.dataset_dir / "latents" / key
    jobs = shard_jobs(index, key)
    if not any(job.split == "train" for job in jobs):
        raise EncodingError(f"{dataset_dir} has no clips in its train split: record some before training.")
    make_folder(folder, EncodingError)
    total = sum(len(job.clips) for job in jobs)

    def wait() -> None:
        on_progress(0, total, "another run encodes the same: waiting for it")

    with hold_lock(folder / "encoding.lock", "", error=EncodingError, on_wait=wait):
        fill(folder, jobs, index, preset, workers, on_progress)
    return folder


def fill(
    folder: Path, jobs: list[ShardJob], index: ClipIndex, preset: Preset, workers: int, on_progress: OnProgress
) -> None:
    """Write what is missing of a cache, or damaged, under its lock."""
    for swept in {folder, *((folder / job.path).parent for job in jobs)}:
        sweep_temporary(swept)
    found = {job.path: rows_before(folder / job.path, job.source) for job in jobs}
    todo = [job for job in jobs if found[job.path] is None]
    total = sum(len(job.clips) for job in jobs)
    done = total - sum(len(job.clips) for job in todo)
    if not todo and is_finished(folder, jobs, found, preset):
        on_progress(total, total, "encoded already: nothing to do")
        return
    on_progress(done, total, f"{done} encoded before" if done else "")
    prepare_codec(index, preset, folder)
    require_free_space(folder, sum(len(job.clips) for job in todo) * clip_bytes(preset))
    for job, rows in encoded(todo, folder, index, preset, workers):
        found[job.path] = rows
        done += len(job.clips)
        on_progress(done, total, Path(job.path).name)
    write_index(folder, jobs, found, what_determines(index.digest, preset))


def rows_before(path: Path, source: str) -> list[dict[str, Any]] | None:
    """Return the rows of a shard that is complete and made from `source`; None for one to be made, again if damaged."""
    rows = (complete_record(path, source) or {}).get("rows")
    whole = isinstance(rows, list) and all(isinstance(row, dict) and row.keys() >= set(COLUMNS) for row in rows)
    return rows if whole else None


def is_finished(
    folder: Path, jobs: list[ShardJob], found: dict[str, list[dict[str, Any]] | None], preset: Preset
) -> bool:
    """Tell whether index, record and codec of a cache are there and whole, beside shards that are."""
    try:
        _, rows = read_cache(folder)
        load_fitted_codec(folder, preset)
    except (EncodingError, CodecError):
        return False
    return rows == [row for job in jobs for row in found[job.path] or []]


def load_fitted_codec(folder: Path, preset: Preset) -> None:
    """Raise CodecError unless the cache's own codec, where the preset has one, can be loaded."""
    if preset.codec.codec == "linear":
        load_codec(preset.codec, folder)


def encode_run(run: Run, on_progress: OnProgress = no_progress) -> tuple[Path, dict[str, int]]:
    """Encode what a run needs; return the cache's folder and the number of windows a split.

    EncodingError when the data set is not the one that the run was opened on.
    """
    digest = ClipIndex(run.dataset_dir).digest
    if digest != run.dataset_digest:
        raise EncodingError(
            f"{run.dataset_dir} was changed since run {run.run_id} was opened (its digest is {digest[:12]} now, it was "
            f"{run.dataset_digest[:12]}): run train-shareverse again for a run on the new data."
        )
    folder = encode_dataset(run.dataset_dir, run.preset, on_progress=on_progress)
    record, _ = read_cache(folder)
    return folder, record["windows"]


def bytes_to_encode(dataset_dir: Path, preset: Preset) -> float:
    """Return about how many bytes `encode_dataset` has still to write, from above."""
    index = ClipIndex(dataset_dir)
    key = latents_key(index.digest, preset)
    folder = index.dataset_dir / "latents" / key
    todo = [job for job in shard_jobs(index, key) if not (folder / job.path).with_suffix(".json").exists()]
    return float(sum(len(job.clips) for job in todo) * clip_bytes(preset))


def clip_bytes(preset: Preset) -> int:
    """Return about how much a clip's windows take on disk, from above: both agents, float16, pictures uncompressed."""
    frames, channels, height, width = preset.latent_shape
    parts = 1 if preset.codec.codec == "linear" else 2
    window = 2 * (2 * parts * frames * channels * height * width + 3 * preset.video.height * preset.video.width)
    stride = preset.training.clip_start_stride
    return window * (1 if not stride else max(1, CLIP_FRAMES // stride))


def prepare_codec(index: ClipIndex, preset: Preset, folder: Path) -> None:
    """Fit the linear codec on training clips spread over the plan, or take the one that the preset names, unless it is
    there already.

    CodecError for one that is damaged: it is not fitted again beside latents that it made.
    """
    if preset.codec.codec != "linear":
        return
    if (folder / LINEAR_CODEC_FOLDER).is_dir():
        load_fitted_codec(folder, preset)
        return
    if preset.codec.fitted_codec:
        with atomic_dir(folder / LINEAR_CODEC_FOLDER) as temporary:
            shutil.copytree(fitted_codec_folder(preset.codec), temporary, dirs_exist_ok=True)
        return
    clips = index.whole("train")

    def videos() -> Iterator[torch.Tensor]:
        for row in clips[:: math.ceil(len(clips) / FIT_CLIPS)]:
            pair = read_pair(row["key"], index.read(row))
            for start in split_starts(preset, "val", pair.videos.shape[1]):  # windows that hardly overlap
                yield model_video(pair.videos[:, start : start + preset.video.frames], preset.video)

    with atomic_dir(folder / LINEAR_CODEC_FOLDER) as temporary:
        codec = LinearCodec.fit(videos(), preset.codec.latent_channels, preset.codec.chroma_weight)
        codec.save_pretrained(temporary)


class Encoder(PoolActor):
    """Holds the codec, writes shards. One that is not complete when it ends has no sidecar."""

    def __init__(self, dataset: str, preset: dict[str, Any], folder: str) -> None:
        self.dataset, self.preset, self.folder = dataset, Preset.from_dict(preset), Path(folder)

    def start(self) -> Answer:
        """Load the codec."""
        torch.set_num_threads(assigned_cores())
        try:
            self.index = ClipIndex(self.dataset)
            self.codec = load_codec(self.preset.codec, self.folder)
        except (CodecError, ShardError, StorageError) as error:
            return "unusable", str(error)
        if torch.cuda.is_available():
            place(self.codec, torch.device("cuda"))
        return "ready", ""

    def work(self, job: ShardJob) -> Answer:
        """Encode one shard; "done" comes with its rows of the index."""
        try:
            return "done", write_shard(job, self.folder, self.index, self.codec, self.preset)
        except (CodecError, EncodingError, ShardError, StorageError, OSError) as error:
            return "fault", str(error)


def write_shard(job: ShardJob, folder: Path, index: ClipIndex, codec: Codec, preset: Preset) -> list[dict[str, Any]]:
    """Write one tar of windows and, last, the sidecar that marks it complete; return its rows of the index."""
    path = folder / job.path
    windows: dict[str, dict[str, Any]] = {}

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for clip in job.clips:
            pair = read_pair(clip["key"], index.read(clip))
            for start, members in encode_clip(pair, job.split, codec, preset).items():
                key = f"{clip['key']}-s{start:03d}"
                windows[key] = {"key": key, "clip": clip["key"], "start": start, "split": job.split,
                                "town": clip["town"], "shard": job.path}  # fmt: skip
                yield key, dict(sorted(members.items()))

    write_samples(path, samples())
    rows = [windows[sample["key"]] | sample for sample in samples_of(path)]
    write_sidecar(path, job.source, rows=rows)
    return rows


def encoded(
    todo: list[ShardJob], folder: Path, index: ClipIndex, preset: Preset, workers: int
) -> Iterator[tuple[ShardJob, list[dict[str, Any]]]]:
    """Encode shards on Ray actors; yield each as it is complete.

    EncodingError for the first that cannot be encoded. A shard whose actor dies or hangs goes to another one first.
    """
    if not todo:
        return
    cpus_here = min(workers or torch.cuda.device_count() or os.cpu_count() or 1, len(todo))
    timeout = ItemTimeout(lambda job: len(job.clips), setup_s=SETUP_TIMEOUT_S, unknown_rate_s=UNKNOWN_CLIP_S)
    queue = ItemQueue(todo, key=lambda job: job.path)
    with ray_cluster(num_cpus=cpus_here) as ray:

        def create_actor(options: dict[str, Any], name: str) -> Any:
            return ray.remote(**options)(Encoder).remote(str(index.place), preset.to_dict(), str(folder))

        needs = Needs(gpus=int(any(node.get("GPU") for node in await_nodes(ray, cpus_here))))
        with ActorPool[ShardJob](ray, "encoder", create_actor, workers or "fit", needs, LIMITS, timeout, LOG) as pool:
            try:
                for outcome in pool.outcomes(queue):
                    if outcome.kind == "failed":
                        raise EncodingError(f"{outcome.item.path} could not be encoded: {outcome.value}")
                    if outcome.kind == "done":
                        yield outcome.item, outcome.value
            except PoolError as error:
                raise EncodingError(
                    f"nothing can be encoded: {error} Run the deployment again; complete shards are kept."
                ) from error


def write_index(
    folder: Path, jobs: list[ShardJob], found: dict[str, list[dict[str, Any]] | None], made_from: dict[str, Any]
) -> None:
    """Write index.parquet and, last, latents.json."""
    rows = [row for job in jobs for row in found[job.path] or []]
    with atomic_file(folder / INDEX) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    record = {
        "key": folder.name,
        "made_from": made_from,
        "windows": {split: sum(row["split"] == split for row in rows) for split in SPLITS},
        "index_sha256": sha256_file(folder / INDEX),
        "shards": {job.path: sha256_file(folder / job.path) for job in jobs},
    }
    with atomic_file(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1))
