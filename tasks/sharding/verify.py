"""`verify` re-reads everything: hashes, members, frame counts, cameras, ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from infra.storage import OnProgress, no_progress, sha256_file
from tasks.sharding.reader import ClipIndex, ClipPair, read_pair
from tasks.sharding.shards import ShardError


def check_pair(pair: ClipPair, split: str) -> None:
    """Raise ShardError where a sample contradicts itself."""
    agents, frames, height, width = pair.videos.shape[:4]
    cameras = pair.cameras
    rotation = cameras.c2w[..., :3, :3]
    problems = {
        "cameras and videos differ in frames": cameras.c2w.shape[2] != frames or len(cameras.time_s) != frames,
        "cameras and videos differ in agents": len(cameras.c2w) != agents,
        "camera rotations are not rotations": not np.allclose(
            rotation @ rotation.swapaxes(-1, -2), np.eye(3), atol=1e-9
        ),
        "principal points are not in the middle of the view": not np.allclose(
            cameras.K[..., :2, 2], (width / 4, height / 4)
        ),
        "ground truth is missing": split != "train" and pair.depth_m is None,
        "ground truth and videos differ in size": pair.depth_m is not None
        and pair.depth_m.shape != (agents, frames, height, width),
        "meta.json names another sample": pair.meta.get("recording_id") != pair.key.rsplit("-", 1)[0],
    }
    wrong = [text for text, found in problems.items() if found]
    if wrong:
        raise ShardError(f"sample {pair.key}: {'; '.join(wrong)}.")


def verify(dataset_dir: Path, *, on_progress: OnProgress = no_progress) -> int:
    """Read every sample of every shard; return their number. ShardError names shard and key of the first fault."""
    index = ClipIndex(dataset_dir)
    for shard, digest in index.record["shards"].items():
        if sha256_file(Path(dataset_dir) / shard) != digest:
            raise ShardError(f"{shard} is not what dataset.json says: delete it and run collect-dataset again.")
    for done, row in enumerate(index.rows):
        on_progress(done, len(index.rows), row["key"])
        check_pair(read_pair(row["key"], index.read(row)), row["split"])
    on_progress(len(index.rows), len(index.rows), "")
    return len(index.rows)
