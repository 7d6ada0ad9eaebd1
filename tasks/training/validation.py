"""What is looked at while training: the loss on val windows with fixed noise, and a generated strip of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import CogVideoXDDIMScheduler
from PIL import Image

from infra.storage import atomic_file
from model.codec import Codec
from model.objective import training_loss
from model.pipeline import ShareVersePipeline
from model.presets import Preset
from model.transformer import ShareVerseTransformer3DModel
from tasks.encoding.latents import LatentWindow, LatentWindows
from tasks.training.batches import Pair, collate, pictures_of, raymaps_of, seeded

WINDOWS = 32
SAMPLE_STEPS = 4
SAMPLE_PICTURES = 4
SEED = 20_260_302
"""Of validation's noise: the same for all runs, so that their losses can be compared."""
TIMESTEPS = 1000


def validation_pairs(windows: LatentWindows) -> list[tuple[LatentWindow, int, torch.Tensor]]:
    """Return at most 32 windows spread over the split, each with its timestep (spread evenly) and noise."""
    count = min(WINDOWS, len(windows))
    chosen = [windows[number * len(windows) // count] for number in range(count)]
    return [
        (
            window,
            int((number + 0.5) / count * TIMESTEPS),
            torch.randn(window.mean.shape, generator=seeded(SEED, number)),
        )
        for number, window in enumerate(chosen)
    ]


@torch.no_grad()
def validation_loss(
    model: torch.nn.Module,
    pairs: list[tuple[LatentWindow, int, torch.Tensor]],
    preset: Preset,
    scheduler: CogVideoXDDIMScheduler,
    codec: Codec,
    text: torch.Tensor,
    dtype: torch.dtype,
) -> float:
    """Return the mean loss over the pairs; all ranks share the work and get the same number.

    Every rank does as many forward passes as the others, as ZeRO-3 requires; one too many counts nothing.
    """
    rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    total = torch.zeros((), device=text.device)
    for slot in range(0, len(pairs), processes):
        number = slot + rank
        window, timestep, noise = pairs[min(number, len(pairs) - 1)]
        pair = Pair(
            window.mean.float(), pictures_of(window), torch.ones(1), raymaps_of(window, preset),
            torch.tensor([timestep]), noise,
        )  # fmt: skip
        batch = collate([pair], codec, text.device)
        loss = training_loss(
            model, scheduler, batch.latents, batch.first, batch.raymaps, text, batch.timesteps, batch.noise, dtype
        )
        total += loss.mean * (number < len(pairs))
    torch.distributed.all_reduce(total)
    return float(total) / len(pairs)


@torch.no_grad()
def write_sample(
    path: Path,
    window: LatentWindow,
    model: ShareVerseTransformer3DModel,
    preset: Preset,
    scheduler: CogVideoXDDIMScheduler,
    codec: Codec,
    text: torch.Tensor,
    dtype: torch.dtype,
) -> None:
    """Write pictures over time of one val window: for each agent the recording (through the codec) over what the model
    makes of its first frame, in a few sampling steps."""
    pipeline = ShareVersePipeline(model, scheduler, codec, text)
    pipeline.set_progress_bar_config(disable=True)
    videos = pipeline(
        pictures_of(window)[None].to(text.device),
        raymaps_of(window, preset)[None].to(text.device),
        num_inference_steps=SAMPLE_STEPS,
        generator=seeded(SEED),
        dtype=dtype,
    ).videos[0]
    recorded = codec.decode(window.mean.float().to(text.device))
    times = np.linspace(0, videos.shape[2] - 1, SAMPLE_PICTURES).round().astype(int)
    rows = [torch.cat([video[:, t] for t in times], -1) for agent in range(len(videos))
            for video in (recorded[agent], videos[agent])]  # fmt: skip
    pixels = ((torch.cat(rows, -2).float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    with atomic_file(path) as temporary:
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(temporary, "PNG")
