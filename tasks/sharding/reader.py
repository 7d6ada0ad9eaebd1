"""Reads shards: map-style by the index, with a sampler that resumes exactly. Plain `webdataset` reads them too."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation

from tasks.recording.depth import metres
from tasks.sharding.archive import members_of
from tasks.sharding.contract import RECORD_AGAIN, Cameras, check_ids, read_cameras, read_meta_and_cameras
from tasks.sharding.errors import ShardError
from tasks.sharding.index import ClipIndex

__all__ = [
    "Cameras", "ClipIndex", "ClipPair", "ClipPairs", "ResumableSampler", "decode_mosaics", "decode_video", "members_of",
    "read_cameras", "read_pair",
]  # fmt: skip

EXACT_CONVERSION = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""swscale's default rounds down, each channel by another amount."""


@dataclass(frozen=True)
class ClipPair:
    """All agents' mosaics and cameras, and ground truth where it was recorded: A agents, F frames, mosaics H x W."""

    key: str
    meta: dict[str, Any]
    videos: np.ndarray
    """[A, F, H, W, 3] uint8"""
    cameras: Cameras
    depth_m: np.ndarray | None
    """[A, F, H, W] float32 along the camera's axis, inf beyond 655.34 m"""
    instance: np.ndarray | None
    """[A, F, H, W] uint16: 0 no vehicle, 1 agent 0, 2 agent 1, other vehicles from 3"""


def decode_video(data: bytes, max_frames: int | None = None, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the frames of a video: [F, H, W, 3] uint8 RGB of H.264, [F, H, W] uint16 of 16-bit grey (trap 36: PyAV).

    max_frames: decode no more than these. size: (width, height) to insist on; another one is not even decoded.
    ShardError for what is no video, has no frame or another size.
    """
    frames: list[np.ndarray] = []
    try:
        with av.open(io.BytesIO(data), "r") as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            size = size or (stream.width, stream.height)
            check_size(stream, size)
            for frame in container.decode(stream):
                if len(frames) == max_frames:
                    break
                check_size(frame, size)
                frames.append(pixels_of(frame))
        return np.stack(frames)
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise ShardError(f"a video cannot be decoded ({' '.join(str(error).split())}): {RECORD_AGAIN}") from error


def check_size(picture: Any, size: tuple[int, int]) -> None:
    """Raise ValueError where a stream or a frame has another size."""
    if (picture.width, picture.height) != size:
        raise ValueError(f"it is {picture.width}x{picture.height} where {size[0]}x{size[1]} belongs")


def pixels_of(frame: av.VideoFrame) -> np.ndarray:
    """Return a frame's pixels: [H, W, 3] uint8 RGB, or [H, W] uint16 of 16-bit grey."""
    if frame.format.name.startswith("gray16"):
        return frame.to_ndarray(format="gray16le")
    return frame.reformat(format="rgb24", src_colorspace="itu709", interpolation=EXACT_CONVERSION).to_ndarray()


def decode_mosaics(key: str, members: dict[str, bytes], cameras: Cameras, kind: str = "mp4") -> np.ndarray:
    """Return all agents' videos of a kind: [A, F, H, W, 3] uint8 of "mp4", [A, F, H, W] uint16 of "depth.mkv" and
    "instance.mkv". ShardError for one whose frames do not agree with the cameras in number and size."""
    width, height = cameras.view_size
    size, frames = (2 * width, 2 * height), len(cameras.time_s)
    pixel = (3,) if kind == "mp4" else ()
    videos = []
    for agent in range(len(cameras.K)):
        name = f"agent{agent}.{kind}"
        try:
            videos.append(decode_video(members[name], frames + 1, size))
        except ShardError as error:
            raise ShardError(f"sample {key}, {name}: {error}") from error
        if videos[-1].shape != (frames, size[1], size[0], *pixel):
            raise ShardError(
                f"sample {key} has {name} of {len(videos[-1])} frames and cameras of {frames}, or other pixels: "
                f"{RECORD_AGAIN}"
            )
    return np.stack(videos)


def read_pair(key: str, members: dict[str, bytes]) -> ClipPair:
    """Decode a sample. ShardError where a member is missing, cannot be read, or contradicts another."""
    meta, cameras = read_meta_and_cameras(key, members)
    videos = decode_mosaics(key, members, cameras)
    depth = instance = None
    if "agent0.depth.mkv" in members:
        depth = metres(decode_mosaics(key, members, cameras, "depth.mkv"))
    if "agent0.instance.mkv" in members:
        instance = decode_mosaics(key, members, cameras, "instance.mkv")
        check_ids(key, instance, len(instance))
    return ClipPair(key, meta, videos, cameras, depth, instance)


class ClipPairs:
    """A split as a map-style data set: `len(pairs)`, `pairs[i] -> ClipPair`. `dataset`: its folder or URL."""

    def __init__(self, dataset: Path | str, split: str) -> None:
        self.index = ClipIndex(dataset)
        self.rows = self.index.split(split)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> ClipPair:
        row = self.rows[position]
        return read_pair(row["key"], self.index.read(row))


class ResumableSampler:
    """Yields positions in a seeded order without end, permuted anew each epoch.

    Its whole state is the number of samples consumed. The order does not depend on the number of processes: each takes
    its part of the global batch.
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
