"""Validation during training: the loss on val windows with fixed noise, and a generated sample picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import CogVideoXDDIMScheduler
from PIL import Image

from infra.storage import atomic_file
from model.build import build_pipeline
from model.codec import Codec, in_dtype
from model.objective import TRAIN_TIMESTEPS, training_loss
from model.presets import Preset
from model.transformer import ShareVerseTransformer3DModel
from tasks.encoding.latents import LatentWindow, LatentWindows
from tasks.training.batches import Pair, collate, first_frames_of, raymaps_of, seeded_generator

MAX_WINDOWS = 32
SAMPLE_STEPS = 4
SAMPLE_FRAMES = 4
SEED = 20_260_302
"""Of validation's noise: the same for all runs, so that their losses can be compared."""


@dataclass(frozen=True)
class Validation:
    """Validates a model on `windows`, at most 32 that are spread evenly over the val split."""

    windows: list[LatentWindow]
    preset: Preset
    scheduler: CogVideoXDDIMScheduler
    codec: Codec
    text: torch.Tensor
    """[1, L, D] on the training device"""
    dtype: torch.dtype

    @torch.no_grad()
    def loss(self, model: torch.nn.Module) -> float:
        """Return the mean loss over the windows; the ranks share the work and all get the same number.

        Every rank does the same number of forward passes, as ZeRO-3 requires; surplus ones are not counted.
        """
        rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
        total = torch.zeros((), device=self.text.device)
        for start in range(0, len(self.windows), processes):
            index = start + rank
            pair = self.pair(min(index, len(self.windows) - 1))
            batch = collate([pair], self.codec, self.text.device, self.preset)
            loss = training_loss(model, self.scheduler, batch, self.text, self.dtype)
            total += loss.mean * (index < len(self.windows))
        torch.distributed.all_reduce(total)
        return float(total) / len(self.windows)

    def pair(self, index: int) -> Pair:
        """Return a window with its timestep (spread evenly over the windows) and its noise, the same in every run."""
        window = self.windows[index]
        return Pair(
            latents=window.mean.float(),
            first_frames=first_frames_of(window),
            image_kept=torch.ones(1),
            raymaps=raymaps_of(window, self.preset),
            timestep=torch.tensor([int((index + 0.5) / len(self.windows) * TRAIN_TIMESTEPS)]),
            noise=torch.randn(window.mean.shape, generator=seeded_generator(SEED, index)),
        )

    @torch.no_grad()
    def write_sample(self, path: Path, model: ShareVerseTransformer3DModel) -> None:
        """Write frames of the first window as a PNG: per agent a row of the recording (through the codec) above a row
        of what the model generates from its first frame, in a few sampling steps and in the training's precision."""
        window, device, codec = self.windows[0], self.text.device, in_dtype(self.codec, self.dtype)
        pipeline = build_pipeline(self.preset, model, codec, self.text)
        pipeline.set_progress_bar_config(disable=True)
        generated = pipeline.generate(
            first_frames_of(window)[None].to(device),
            raymaps_of(window, self.preset)[None].to(device),
            num_inference_steps=SAMPLE_STEPS,
            generator=seeded_generator(SEED),
            dtype=self.dtype,
        )[0]
        recorded = codec.decode(window.mean.float().to(device))
        frames = np.linspace(0, generated.shape[2] - 1, SAMPLE_FRAMES).round().astype(int)
        rows = [
            torch.cat([video[:, frame] for frame in frames], -1)
            for agent in range(len(generated))
            for video in (recorded[agent], generated[agent])
        ]
        pixels = ((torch.cat(rows, -2).float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        with atomic_file(path) as temporary:
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(temporary, "PNG")


def validation_windows(windows: LatentWindows) -> list[LatentWindow]:
    """Return at most 32 windows, spread evenly over the split."""
    count = min(MAX_WINDOWS, len(windows))
    return [windows[index * len(windows) // count] for index in range(count)]
