"""The latent cache of a data set: `datasets/<name>/latents/<key>/`, written once, read by index.

latents.json       what the key is made from, counts and hashes; written last
codec/             the linear codec where the preset has one, fitted once (trap 38: small VAEs are worse)
index.parquet      one row per window: key, clip, start, split, shard, offset, bytes, sha256
shards/<split>/    tars; a window has `window.safetensors` (mean, logvar where the codec has one, K, c2w) and
                   `agentN.first.png`, its first frames, to whose pixels training adds noise (trap 19: training-only
                   noise)
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save

from infra.reading import one_line, read_json, read_parquet, read_part, read_sha256
from infra.storage import canonical_json, sha256_bytes, sha256_file
from model.codec import Codec, LinearCodec, VaeCodec, fitted_codec_folder, module_of
from model.presets import Preset
from model.weights import WEIGHTS_STEM
from tasks.encoding.frames import model_video, window_starts
from tasks.sharding.reader import ClipPair, members_of
from tasks.sharding.shards import ShardError

LAYOUT = 1
"""Number of this layout: part of the key."""
RECORD, INDEX = "latents.json", "index.parquet"
COLUMNS = ("key", "clip", "start", "split", "town", "shard", "offset", "bytes", "sha256")
FIT_CLIPS = 32
"""Training clips at most that a linear codec is fitted on: 10^4 blocks and more for 192 and 768 dimensions."""
PRELOAD_BYTES = 1 << 30
SPLITS = ("train", "val")
"""The test split is encoded where it is scored."""


class EncodingError(RuntimeError):
    """Latents that are missing, incomplete or not what their hash says: what, and what to do."""


@dataclass(frozen=True)
class LatentWindow:
    """One training sample: a window of a clip pair; A agents, V views, T frames, F latent frames."""

    key: str
    clip: str
    start: int
    mean: torch.Tensor
    """[A, F, C, h, w] float16, scaled (trap 17: scaled twice or never)"""
    logvar: torch.Tensor | None
    """[A, F, C, h, w] float16; None for a codec without variance"""
    first: torch.Tensor
    """[A, 3, H, W] uint8: the first frames"""
    K: torch.Tensor
    """[A, V, 3, 3] float64, of the stored view"""
    c2w: torch.Tensor
    """[A, V, T, 4, 4] float64"""


def what_determines(digest: str, preset: Preset) -> dict[str, Any]:
    """Return everything that latents depend on: their key is its hash (trap 22: tokens straddle views)."""
    linear = preset.codec.codec == "linear"
    fitted = {}
    if preset.codec.fitted_codec:
        weights = fitted_codec_folder(preset.codec) / f"{WEIGHTS_STEM}.safetensors"
        fitted = {"fitted_codec_sha256": sha256_file(weights)}
    return {
        "layout": LAYOUT,
        "dataset_digest": digest,
        "codec": preset.identity()["codec"],
        "tiling": "none" if linear else VaeCodec.tiling,
        "fitted_on_clips": FIT_CLIPS if linear else 0,
        "video": preset.identity()["video"],
        "clip_start_stride": preset.training.clip_start_stride,
        **fitted,
    }


def latents_key(digest: str, preset: Preset) -> str:
    return sha256_bytes(canonical_json(what_determines(digest, preset)).encode())[:16]


def split_starts(preset: Preset, split: str, clip_frames: int) -> list[int]:
    """Return where a split's windows start: training's overlap as the preset says, validation's hardly do."""
    stride = preset.training.clip_start_stride
    if split != "train" and stride:
        stride = max(stride, preset.video.frames - 1)
    return window_starts(clip_frames, preset.video.frames, stride)


@torch.no_grad()
def encode_clip(pair: ClipPair, split: str, codec: Codec, preset: Preset) -> dict[int, dict[str, bytes]]:
    """Return the members of every window of a clip, by its start."""
    video = model_video(pair.videos, preset.video)
    device = next(iter(module_of(codec).state_dict().values())).device
    windows = {}
    for start in split_starts(preset, split, video.shape[2]):
        part = video[:, :, start : start + preset.video.frames]
        mean, logvar = codec.encode(part.to(device))
        tensors = {
            "mean": mean.cpu().half(),
            "K": torch.from_numpy(pair.cameras.K.copy()),
            "c2w": torch.from_numpy(pair.cameras.c2w[:, :, start : start + preset.video.frames].copy()),
        }
        if not isinstance(codec, LinearCodec):
            tensors["logvar"] = logvar.cpu().half()
        members = {f"agent{agent}.first.png": png(picture) for agent, picture in enumerate(part[:, :, 0])}
        windows[start] = members | {"window.safetensors": save({name: t.contiguous() for name, t in tensors.items()})}
    return windows


def place(codec: Codec, device: torch.device) -> None:
    """Move a codec to a device."""
    module_of(codec).to(device)


def png(picture: torch.Tensor) -> bytes:
    """Write [3, H, W] in [-1, 1]; equal pictures give equal bytes."""
    pixels = ((picture + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def read_window(row: Mapping[str, Any], data: bytes) -> LatentWindow:
    """Decode a window of the index from its bytes in the shard."""
    members = members_of(data, row["key"])
    tensors = load(members["window.safetensors"])
    pictures = [
        np.array(Image.open(io.BytesIO(members[f"agent{agent}.first.png"])).convert("RGB"))
        for agent in range(len(tensors["mean"]))
    ]
    first = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return LatentWindow(
        row["key"], row["clip"], row["start"], tensors["mean"], tensors.get("logvar"), first,
        tensors["K"], tensors["c2w"],
    )  # fmt: skip


def read_cache(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return latents.json and the index of a finished cache. EncodingError for one that is not finished, or damaged."""
    marker, index = folder / RECORD, folder / INDEX
    if not marker.exists():
        raise EncodingError(f"{folder} holds no finished latents (no {RECORD}): encode the data set first.")
    again = "run train-shareverse again, which mends it."
    record: dict[str, Any] = read_json(marker, again, error=EncodingError)
    windows, sha256 = record.get("windows"), record.get("index_sha256")
    if not isinstance(windows, dict) or not isinstance(sha256, str | None):
        raise EncodingError(f"{marker} does not say how many windows there are: {again}")
    rows = read_parquet(index, again, COLUMNS, EncodingError)
    counts = {split: sum(row["split"] == split for row in rows) for split in SPLITS}
    if counts != windows or (sha256 is not None and sha256 != read_sha256(index, again, EncodingError)):
        raise EncodingError(f"{index} is not the index that {marker.name} was written with: {again}")
    return record, rows


class LatentWindows:
    """Map-style view of a split's windows: `len`, `[i] -> LatentWindow`, read lazily or kept in memory."""

    def __init__(self, latents_dir: Path, split: str, *, preload: bool = False) -> None:
        """Open a finished cache; `preload` keeps everything in memory where that is less than a gigabyte.

        EncodingError when the cache is not finished, or damaged.
        """
        self.folder = Path(latents_dir)
        self.record, rows = read_cache(self.folder)
        self.rows = [row for row in rows if row["split"] == split]
        small = sum(row["bytes"] for row in self.rows) <= PRELOAD_BYTES
        self.kept = [self.read(row) for row in self.rows] if preload and small else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> LatentWindow:
        return self.kept[position] if self.kept is not None else self.read(self.rows[position])

    def read(self, row: Mapping[str, Any]) -> LatentWindow:
        """Read one window. EncodingError when its bytes are not those that were written."""
        shard = self.folder / row["shard"]
        again = f"delete {self.folder} and encode again (run train-shareverse)."
        data = read_part(shard, row["offset"], row["bytes"], again, EncodingError)
        if sha256_bytes(data) != row["sha256"]:
            raise EncodingError(f"{shard} is corrupt at {row['key']}: {again}")
        try:
            return read_window(row, data)
        except (ShardError, SafetensorError, KeyError, OSError, ValueError) as error:
            raise EncodingError(f"{shard} holds no window {row['key']} ({one_line(error)}): {again}") from error
