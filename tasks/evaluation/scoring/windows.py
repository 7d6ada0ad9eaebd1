"""Windows of the model's length in stored clips: pixels and cameras, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.presets import Preset
from model.raymap import build_raymaps
from tasks.encoding.frames import model_video, window_starts
from tasks.evaluation.errors import EvaluationError
from tasks.sharding.reader import Cameras, ClipIndex, decode_mosaics, read_cameras

RECENT_CLIPS = 4


@dataclass(frozen=True)
class Window:
    """Where a window lies."""

    row: dict[str, Any]
    """The clip's row of the index."""
    start: int
    """First frame in the clip."""

    @property
    def name(self) -> str:
        return f"{self.row['key']}+{self.start:02d}"

    @property
    def scene(self) -> str:
        return str(self.row["scene_id"])

    @property
    def moment(self) -> tuple[str, int, int]:
        """The scene, where the clip starts in its recording, where the window starts in the clip: alike in variants."""
        return self.scene, int(self.row["window"]), self.start


class Windows:
    """All windows of some clips that share no frame but the first, which is given, in the index's order."""

    def __init__(self, dataset_dir: Path, rows: Sequence[dict[str, Any]], preset: Preset) -> None:
        self.clips, self.preset = ClipIndex(dataset_dir), preset
        self.frames = preset.video.frames
        self.pixels = lru_cache(RECENT_CLIPS)(self.read_pixels)
        self.rows = {row["key"]: row for row in rows}
        self.cameras: dict[str, Cameras] = {}
        self.windows: list[Window] = []
        for row in rows:
            cameras = read_cameras(self.clips.read(row)["cameras.npz"])
            self.cameras[row["key"]] = cameras
            try:
                starts = window_starts(len(cameras.time_s), self.frames, self.frames - 1)
            except ValueError as error:
                raise EvaluationError(f"clip {row['key']} cannot be scored: {error}") from error
            self.windows += [Window(row, start) for start in starts]

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> Iterator[Window]:
        return iter(self.windows)

    def __getitem__(self, index: int) -> Window:
        return self.windows[index]

    def keep_at_most(self, limit: int, *, seed: int = 0) -> None:
        """Keep `limit` windows at most, spread evenly over the scenes.

        Windows of one moment in a scene's variants stay together: they are compared.
        """
        moments: dict[tuple[str, int, int], list[int]] = {}
        for index, window in enumerate(self.windows):
            moments.setdefault(window.moment, []).append(index)
        together = list(moments.values())
        kept: list[int] = []
        for position in in_turn([self.windows[indices[0]].scene for indices in together], seed):
            if len(kept) + len(together[position]) <= limit:
                kept += together[position]
        self.windows = [self.windows[index] for index in sorted(kept)]

    def balanced(self, limit: int, *, seed: int = 0) -> list[int]:
        """Return the indices of `limit` windows at most, spread evenly over the recordings."""
        return balanced([window.row["recording_id"] for window in self.windows], limit, seed)

    def read_pixels(self, key: str) -> np.ndarray:
        """Return a clip's mosaics [A, T, H, W, 3] uint8."""
        return decode_mosaics(key, self.clips.read(self.rows[key]), self.cameras[key])

    def mutual_sight(self, index: int) -> float:
        """Return how large the agents see each other: the share of another agent's pixels in the one that sees least.

        0 where no instance ids were recorded.
        """
        window = self.windows[index]
        key, members = window.row["key"], self.clips.read(window.row)
        if "agent0.instance.mkv" not in members:
            return 0.0
        instance = decode_mosaics(key, members, self.cameras[key], "instance.mkv")
        seen = instance[:, window.start : window.start + self.frames]
        return min(
            float(((ids > 0) & (ids <= len(seen)) & (ids != agent + 1)).mean()) for agent, ids in enumerate(seen)
        )

    def video(self, indices: Sequence[int]) -> torch.Tensor:
        """Return the model's videos [N, A, 3, T, H, W] in [-1, 1] of the windows at `indices`."""
        videos = []
        for window in (self.windows[index] for index in indices):
            clip = self.pixels(window.row["key"])
            videos.append(model_video(clip[:, window.start : window.start + self.frames], self.preset.video))
        return torch.stack(videos)

    def raymaps(self, indices: Sequence[int], *, swapped: bool = False) -> torch.Tensor:
        """Return raymaps [N, A, F, 24, H/8, W/8] of the windows at `indices`, `swapped`: with the agents reversed."""
        maps, turn = [], slice(None, None, -1) if swapped else slice(None)
        for window in (self.windows[index] for index in indices):
            cameras = self.cameras[window.row["key"]]
            c2w = torch.from_numpy(cameras.c2w[turn, :, window.start : window.start + self.frames].copy())
            maps.append(build_raymaps(torch.from_numpy(cameras.K[turn].copy()), c2w, **self.preset.raymap_options))
        return torch.stack(maps)

    def batches(self, size: int) -> Iterator[list[int]]:
        """Yield the indices of `size` windows at a time."""
        for start in range(0, len(self), size):
            yield list(range(start, min(start + size, len(self))))


def balanced(groups: Sequence[str], limit: int, seed: int = 0) -> list[int]:
    """Return the indices of `limit` items at most, taken from the groups in turn, in their original order."""
    return sorted(in_turn(groups, seed)[:limit])


def in_turn(groups: Sequence[str], seed: int = 0) -> list[int]:
    """Return the indices of all items, one of each group, then a second of each, and so on; at random within that."""
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    turn: dict[str, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for index in shuffled:
        group = groups[index]
        ranked.append((turn.get(group, 0), len(ranked), int(index)))
        turn[group] = turn.get(group, 0) + 1
    return [index for _, _, index in sorted(ranked)]
