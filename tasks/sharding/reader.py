"""Reading shards: map-style by the index, with a sampler that resumes exactly; plain `webdataset` reads them too."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
from av.video.reformatter import Interpolation

from infra.storage import sha256_bytes
from tasks.sharding.shards import ShardError

FAR = 65535
"""Depth code of everything farther than 655.34 m."""
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""swscale's own choice rounds down, each channel by another amount."""


@dataclass(frozen=True)
class Cameras:
    """Cameras of a clip pair; A agents, V views, F frames (see CAMERA_CONVENTION in shards.py)."""

    K: np.ndarray
    """[A, V, 3, 3] float64, pixels of the stored view."""
    c2w: np.ndarray
    """[A, V, F, 4, 4] float64."""
    carla_pose: np.ndarray
    """[A, V, F, 6] x, y, z, pitch, yaw, roll of each camera, CARLA's axes and degrees."""
    agent_pose: np.ndarray
    """[A, F, 6] of each vehicle."""
    agent_extent: np.ndarray
    """[A, 3] half sizes in metres."""
    agent_box_center: np.ndarray
    """[A, 3] in the car's frame."""
    time_s: np.ndarray
    """[F]"""


@dataclass(frozen=True)
class ClipPair:
    """Both agents' mosaics and cameras, ground truth where it was recorded."""

    key: str
    meta: dict[str, Any]
    videos: np.ndarray
    """[A, F, H, W, 3] uint8"""
    cameras: Cameras
    depth_m: np.ndarray | None
    """[A, F, H, W] float32 along the camera's axis, inf where farther than 655 m"""
    instance: np.ndarray | None
    """[A, F, H, W] uint16: 0 no agent, 1 agent 0, 2 agent 1, others from 3"""


def decode_video(data: bytes, most: int | None = None) -> np.ndarray:
    """Return [F, H, W, 3] uint8 RGB of an H.264 clip, [F, H, W] uint16 of a 16-bit grey one (trap 36: PyAV).

    `most`: no more than so many frames.
    """
    frames: list[np.ndarray] = []
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if len(frames) == most:
                break
            if frame.format.name.startswith("gray16"):
                frames.append(frame.to_ndarray(format="gray16le"))
            else:
                frames.append(frame.reformat(format="rgb24", src_colorspace="itu709", interpolation=EXACT).to_ndarray())
    return np.stack(frames)


def members_of(data: bytes, key: str) -> dict[str, bytes]:
    """Return a sample's members by name. ShardError for a member that is no plain file of this sample."""
    members = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data + bytes(1024)), mode="r:") as tar:
            for member in tar:
                prefix, _, name = member.name.partition(".")
                file = tar.extractfile(member) if member.isreg() else None
                if prefix != key or "/" in name or not name or file is None:
                    raise ShardError(f"sample {key} holds a foreign member {member.name!r}: write the shards again.")
                members[name] = file.read()
    except tarfile.TarError as error:
        raise ShardError(f"sample {key} is no readable tar ({error}): write the shards again.") from error
    return members


def read_cameras(data: bytes) -> Cameras:
    """Return the arrays of cameras.npz; nothing in it may be a pickle."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Cameras(**{name: arrays[name] for name in Cameras.__dataclass_fields__})


def read_pair(key: str, members: dict[str, bytes]) -> ClipPair:
    """Decode a sample's members. ShardError names a missing one."""
    try:
        agents = sum(name.startswith("agent") and name.endswith(".mp4") for name in members)
        videos = np.stack([decode_video(members[f"agent{agent}.mp4"]) for agent in range(agents)])
        depth = instance = None
        if "agent0.depth.mkv" in members:
            code = np.stack([decode_video(members[f"agent{agent}.depth.mkv"]) for agent in range(agents)])
            depth = np.where(code == FAR, np.inf, code / 100).astype(np.float32)
        if "agent0.instance.mkv" in members:
            instance = np.stack([decode_video(members[f"agent{agent}.instance.mkv"]) for agent in range(agents)])
        meta, cameras = json.loads(members["meta.json"]), read_cameras(members["cameras.npz"])
    except (KeyError, ValueError, av.FFmpegError) as error:
        raise ShardError(f"sample {key} cannot be read ({error!r}): write the shards again.") from error
    return ClipPair(key, meta, videos, cameras, depth, instance)


class ClipIndex:
    """The index of a data set: rows in the plan's order, and the digest that names the data."""

    def __init__(self, dataset_dir: Path) -> None:
        self.dataset_dir = Path(dataset_dir)
        record = self.dataset_dir / "dataset.json"
        if not record.exists():
            raise ShardError(
                f"{self.dataset_dir} is no finished data set (no dataset.json): run collect-dataset first."
            )
        self.record = json.loads(record.read_text())
        self.digest: str = self.record["digest"]
        self.rows: list[dict[str, Any]] = pq.read_table(self.dataset_dir / "index.parquet").to_pylist()

    def split(self, split: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["split"] == split]

    def whole(self, split: str) -> list[dict[str, Any]]:
        """Return a split's clips without those of one frame, which only check hidden-fact scenes for leaks."""
        single = {"repeat", "fact_changed"} if split == "train" else {"repeat"}
        return [row for row in self.split(split) if row["variant"] not in single]

    def read(self, row: dict[str, Any]) -> dict[str, bytes]:
        """Return a row's members. ShardError when its bytes are not those that were written."""
        with open(self.dataset_dir / row["shard"], "rb") as file:
            file.seek(row["offset"])
            data = file.read(row["bytes"])
        if sha256_bytes(data) != row["sha256"]:
            raise ShardError(f"{row['shard']} is corrupt at sample {row['key']}: delete it and collect again.")
        return members_of(data, row["key"])


class ClipPairs:
    """Map-style view of a split: `len`, `[i] -> ClipPair`."""

    def __init__(self, dataset_dir: Path, split: str) -> None:
        self.index = ClipIndex(dataset_dir)
        self.rows = self.index.split(split)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> ClipPair:
        row = self.rows[position]
        return read_pair(row["key"], self.index.read(row))


class ResumableSampler:
    """An endless seeded permutation, epoch after epoch; its whole state is the number of samples consumed.

    The order does not depend on how many processes share it: each takes its part of the global batch.
    """

    def __init__(self, length: int, seed: int, consumed: int = 0) -> None:
        if length < 1:
            raise ShardError("there is nothing to sample: the split is empty.")
        self.length, self.seed, self.consumed = length, seed, consumed

    def __iter__(self) -> Iterator[int]:
        while True:
            epoch, start = divmod(self.consumed, self.length)
            order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            for position in order[start:]:
                self.consumed += 1
                yield int(position)
