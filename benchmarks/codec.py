"""What a linear codec keeps of a data set's pictures, by its channels, its weight of colour and the picture's size.

`python benchmarks/codec.py DATASET`: fitted on clips of the train split, measured on the val split, frames after the
first. Ratio to the pictures themselves: a codec that keeps all has detail 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from model.codec import LinearCodec, round_trip
from model.presets import VideoConfig
from tasks.encoding.frames import model_video
from tasks.evaluation.measures.metrics import GIVEN_FRAMES, detail, psnr, views_of
from tasks.sharding.reader import ClipPairs

SIZES = ((64, 96), (128, 192))
SETTINGS = ((16, 1.0), (16, 2.0), (24, 1.0), (24, 2.0), (32, 2.0), (48, 2.0), (48, 3.0))
"""Latent channels, and how much colour weighs."""
FITTED, MEASURED, FRAMES = 40, 12, 9
"""Clips of each kind at most, and frames per window."""


def windows(dataset: Path, split: str, count: int, height: int, width: int) -> list[torch.Tensor]:
    """Return the first frames of clips spread over a split, [A, 3, T, H, W] each."""
    pairs, video = ClipPairs(dataset, split), VideoConfig(frames=FRAMES, height=height, width=width)
    chosen = range(0, len(pairs), max(1, len(pairs) // count))
    return [model_video(pairs[index].videos[:, :FRAMES], video) for index in list(chosen)[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder of a data set with train and val clips")
    dataset = parser.parse_args().dataset
    print("picture | channels | weight of colour | PSNR, dB | detail kept")
    for height, width in SIZES:
        fitted, measured = (
            windows(dataset, split, count, height, width) for split, count in (("train", FITTED), ("val", MEASURED))
        )
        truth = views_of(torch.stack(measured))[..., GIVEN_FRAMES:, :, :, :]
        for channels, chroma_weight in SETTINGS:
            codec = LinearCodec.fit(fitted, channels, chroma_weight)
            kept = views_of(round_trip(codec, torch.stack(measured)))[..., GIVEN_FRAMES:, :, :, :]
            share = float(detail(kept).mean() / detail(truth).mean())
            score = float(psnr(kept, truth).mean())
            print(f"{width}x{height} | {channels} | {chroma_weight:g} | {score:.2f} | {share:.3f}")


if __name__ == "__main__":
    main()
