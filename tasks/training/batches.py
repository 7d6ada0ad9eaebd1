"""The batch of one optimiser step.

Its randomness depends only on (seed, step, position in the global batch), so a resumed run repeats it, however many
processes share the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.codec import Codec, encode_pictures
from model.objective import Batch, add_image_noise, drop_images, sample_timesteps
from model.presets import Preset
from model.raymap import build_raymaps
from tasks.encoding.latents import LatentWindow


@dataclass(frozen=True)
class Pair:
    """One window of latents and everything that was drawn for it: an entry of a batch."""

    latents: torch.Tensor
    """[A, F, C, h, w] float32"""
    first_frames: torch.Tensor | None
    """[A, 3, H, W] in [-1, 1], noisy; None: take the first frame of `latents`"""
    image_kept: torch.Tensor
    """[1]: 1, or 0 where the image condition is dropped"""
    raymaps: torch.Tensor
    """[A, F, 24, h, w]"""
    timestep: torch.Tensor
    """[1]"""
    noise: torch.Tensor
    """[A, F, C, h, w]"""


def seeded_generator(*numbers: int) -> torch.Generator:
    """Return a CPU generator seeded by the numbers alone."""
    low, high = np.random.SeedSequence(numbers).generate_state(2)
    return torch.Generator().manual_seed(int(low) | int(high) << 32)


def first_frames_of(window: LatentWindow) -> torch.Tensor:
    """Return the first frames [A, 3, H, W] in [-1, 1]."""
    return window.first.float() / 127.5 - 1


def raymaps_of(window: LatentWindow, preset: Preset, translation_m: torch.Tensor | None = None) -> torch.Tensor:
    """Return the window's raymaps [A, F, 24, h, w], built as the preset says."""
    return build_raymaps(window.K, window.c2w, translation=translation_m, **preset.raymap_options)


def swap_agents(window: LatentWindow) -> LatentWindow:
    """Return the window with its agents in reverse order (trap 24: agent order matters)."""
    return LatentWindow(
        window.key, window.clip, window.start, window.mean.flip(0),
        None if window.logvar is None else window.logvar.flip(0),
        window.first.flip(0), window.K.flip(0), window.c2w.flip(0),
    )  # fmt: skip


def draw_training_pair(window: LatentWindow, preset: Preset, generator: torch.Generator) -> Pair:
    """Draw all that is random about one training pair, always in the same order."""
    config = preset.objective
    if bool(torch.rand((), generator=generator) < 0.5) and preset.training.swap_agents:
        window = swap_agents(window)
    translation = config.raymap_translation_m * torch.randn(3, generator=generator, dtype=torch.float64)
    first_frames = None
    if config.image_noise:
        clean = first_frames_of(window)
        first_frames = add_image_noise(clean, config.image_noise_mean, config.image_noise_std, generator)
    elif config.image_condition == "all":
        first_frames = first_frames_of(window)
    image_kept = drop_images(torch.ones(1), config.image_dropout, generator)
    timestep = sample_timesteps(1, config.timestep_bias, generator)
    noise = torch.randn(window.mean.shape, generator=generator)
    latents = window.mean.float()
    if window.logvar is not None:
        latents = latents + torch.exp(0.5 * window.logvar.float()) * torch.randn(latents.shape, generator=generator)
    return Pair(latents, first_frames, image_kept, raymaps_of(window, preset, translation), timestep, noise)


def collate(pairs: Sequence[Pair], codec: Codec, device: torch.device, preset: Preset) -> Batch:
    """Return the pairs as one batch on the device, where their noisy first frames are encoded."""
    latents = torch.stack([pair.latents for pair in pairs]).to(device)
    image_latents = latents[:, :, :1]
    if pairs[0].first_frames is not None:
        first_frames = torch.stack([pair.first_frames for pair in pairs if pair.first_frames is not None]).to(device)
        image_latents = encode_pictures(codec, first_frames, preset.image_frames)
    image_kept = torch.stack([pair.image_kept for pair in pairs]).to(device)
    return Batch(
        latents=latents,
        image_latents=image_latents * image_kept.view(-1, *[1] * (image_latents.ndim - 1)),
        raymaps=torch.stack([pair.raymaps for pair in pairs]).to(device),
        timesteps=torch.cat([pair.timestep for pair in pairs]).to(device),
        noise=torch.stack([pair.noise for pair in pairs]).to(device),
        given_frames=preset.given_frames,
        predicts_change=preset.predicts_change,
    )


def batch_positions(batch_size: int, micro_batch_size: int, processes: int, rank: int) -> list[range]:
    """Return the positions in the global batch that a rank takes, one range per forward pass."""
    starts = range(rank * micro_batch_size, batch_size, micro_batch_size * processes)
    return [range(start, start + micro_batch_size) for start in starts]
