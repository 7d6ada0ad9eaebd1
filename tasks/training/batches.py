"""What one optimiser step sees. Its randomness comes from (seed, step, position in the global batch) alone, so that a
resumed run repeats it, however the batch is shared among processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.codec import Codec
from model.objective import drop_images, image_noise, sample_timesteps
from model.presets import Preset
from model.raymap import build_raymaps
from tasks.encoding.latents import LatentWindow


@dataclass(frozen=True)
class Batch:
    """Inputs of `training_loss`, on the training device; B pairs."""

    latents: torch.Tensor
    """[B, A, F, C, h, w] float32"""
    first: torch.Tensor
    """[B, A, 1, C, h, w]: latents of the first frames"""
    raymaps: torch.Tensor
    """[B, A, F, 24, h, w]"""
    timesteps: torch.Tensor
    """[B]"""
    noise: torch.Tensor
    """[B, A, F, C, h, w]"""


@dataclass(frozen=True)
class Pair:
    """One window with what was drawn for it."""

    latents: torch.Tensor
    pictures: torch.Tensor | None
    """[A, 3, H, W] in [-1, 1], noisy; None: take the first frame of `latents`"""
    kept: torch.Tensor
    """1, or 0 where the image condition is dropped"""
    raymaps: torch.Tensor
    timestep: torch.Tensor
    noise: torch.Tensor


def seeded(*numbers: int) -> torch.Generator:
    """Return a CPU generator that depends on the numbers alone."""
    low, high = np.random.SeedSequence(numbers).generate_state(2)
    return torch.Generator().manual_seed(int(low) | int(high) << 32)


def pictures_of(window: LatentWindow) -> torch.Tensor:
    """Return the first frames [A, 3, H, W] in [-1, 1]."""
    return window.first.float() / 127.5 - 1


def raymaps_of(window: LatentWindow, preset: Preset, translation_m: torch.Tensor | None = None) -> torch.Tensor:
    """Return the window's raymaps [A, F, 24, h, w] as the preset wants them."""
    return build_raymaps(window.K, window.c2w, translation=translation_m, **preset.raymap_options)


def swapped(window: LatentWindow) -> LatentWindow:
    """Return the window with its agents in the other order (trap 24)."""
    return LatentWindow(
        window.key, window.clip, window.start, window.mean.flip(0),
        None if window.logvar is None else window.logvar.flip(0),
        window.first.flip(0), window.K.flip(0), window.c2w.flip(0),
    )  # fmt: skip


def draw_pair(window: LatentWindow, preset: Preset, generator: torch.Generator) -> Pair:
    """Draw everything that is random about one training pair, always in the same order."""
    config = preset.objective
    if bool(torch.rand((), generator=generator) < 0.5) and preset.training.swap_agents:
        window = swapped(window)
    translation = config.raymap_translation_m * torch.randn(3, generator=generator, dtype=torch.float64)
    pictures = None
    if config.image_noise:
        pictures = image_noise(pictures_of(window), config.image_noise_mean, config.image_noise_std, generator)
    kept = drop_images(torch.ones(1), config.image_dropout, generator)
    timestep = sample_timesteps(1, config.timestep_bias, generator)
    noise = torch.randn(window.mean.shape, generator=generator)
    latents = window.mean.float()
    if window.logvar is not None:
        latents = latents + torch.exp(0.5 * window.logvar.float()) * torch.randn(latents.shape, generator=generator)
    return Pair(latents, pictures, kept, raymaps_of(window, preset, translation), timestep, noise)


def collate(pairs: Sequence[Pair], codec: Codec, device: torch.device) -> Batch:
    """Stack pairs on the device; encode their noisy first frames there."""
    latents = torch.stack([pair.latents for pair in pairs]).to(device)
    first = latents[:, :, :1]
    if pairs[0].pictures is not None:
        pictures = torch.stack([pair.pictures for pair in pairs if pair.pictures is not None]).to(device)
        first = encode_pictures(pictures, codec)
    kept = torch.stack([pair.kept for pair in pairs]).to(device)
    return Batch(
        latents,
        first * kept.view(-1, *[1] * (first.ndim - 1)),
        torch.stack([pair.raymaps for pair in pairs]).to(device),
        torch.cat([pair.timestep for pair in pairs]).to(device),
        torch.stack([pair.noise for pair in pairs]).to(device),
    )


@torch.no_grad()
def encode_pictures(pictures: torch.Tensor, codec: Codec) -> torch.Tensor:
    """Encode first frames [B, A, 3, H, W]; return [B, A, 1, C, h, w]."""
    mean, _ = codec.encode(pictures.flatten(0, 1)[:, :, None])
    return mean.unflatten(0, pictures.shape[:2])


def positions(batch_size: int, micro_batch_size: int, processes: int, rank: int) -> list[range]:
    """Return which positions of the global batch a rank takes, a range a forward pass."""
    each = micro_batch_size * processes
    starts = range(rank * micro_batch_size, batch_size, each)
    return [range(start, start + micro_batch_size) for start in starts]
