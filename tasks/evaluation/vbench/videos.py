"""Videos as VBench reads them: lossless RGB in .mp4, so that every reader sees the same pixels.

OpenCV and decord, both used by VBench, turn YUV into RGB in ways of their own; here there is nothing to turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from model import mosaic

LOSSLESS = {"qp": "0", "preset": "veryfast"}


def write_lossless_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames [T, h, w, 3] uint8 RGB."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=Fraction(fps).limit_denominator(1000), options=LOSSLESS)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def bytes_of(video: torch.Tensor) -> np.ndarray:
    """Return [..., T, h, w, 3] uint8 of videos [..., 3, T, h, w] in [-1, 1]."""
    return ((video.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(-4, -1).numpy()


def write_rows(
    folder: Path, name: str, videos: Iterable[torch.Tensor], fps: float, *, views: bool = True
) -> dict[str, list[Path]]:
    """Write clips, each [A, 3, T, H, W] in [-1, 1]; return the files of `name, mosaics` and of `name, views`.

    What was read back from a file that was written lossily is a video as any other. One clip is held at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[Path]] = {f"{name}, {what}": [] for what in ("mosaics", "views")[: 1 + views]}
    for clip, video in enumerate(videos):
        for agent, pixels in enumerate(video):
            parts = {f"{name}, mosaics": [pixels]}
            if views:
                parts[f"{name}, views"] = list(mosaic.split(pixels.transpose(0, 1)).transpose(0, 1).transpose(1, 2))
            for row, several in parts.items():
                for part, one in enumerate(several):
                    path = folder / f"{row.replace(', ', '-')}-clip{clip:04d}-agent{agent}-{part}.mp4"
                    write_lossless_video(path, bytes_of(one), fps)
                    rows[row].append(path)
    return rows
