"""What training minimises: v-prediction on CogVideoX's zero-terminal-SNR schedule, conditioned on the first frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import CogVideoXDDIMScheduler

from model.presets import ObjectiveConfig

BUCKETS = 4
"""Timestep quarters in which the loss is reported."""


def noise_schedule(config: ObjectiveConfig) -> CogVideoXDDIMScheduler:
    """Return the schedule of CogVideoX-5B (trap 18): the class's defaults are others."""
    return CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=config.snr_shift_scale,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def condition(first: torch.Tensor, frames: int) -> torch.Tensor:
    """Return the image condition [B, A, F, C, h, w]: the first frame's latent [B, A, 1, C, h, w], then zeros."""
    return torch.cat([first, first.new_zeros(*first.shape[:2], frames - 1, *first.shape[3:])], 2)


def drop_images(first: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Zero the image latents of a share of the pairs (trap 19)."""
    keep = torch.rand(len(first), generator=generator) >= probability
    return first * keep.view(-1, *[1] * (first.ndim - 1)).to(first.dtype)


def image_noise(images: torch.Tensor, mean: float, std: float, generator: torch.Generator) -> torch.Tensor:
    """Add noise of sigma = exp(N(mean, std)) to first frames [N, ...] in [-1, 1], before they are encoded (trap 19)."""
    sigma = torch.exp(mean + std * torch.randn(len(images), generator=generator))
    return images + sigma.view(-1, *[1] * (images.ndim - 1)) * torch.randn(images.shape, generator=generator)


def sample_timesteps(count: int, bias: float, generator: torch.Generator, steps: int = 1000) -> torch.Tensor:
    """Return [count] timesteps; bias 1 is uniform, larger ones prefer the noisy end."""
    u = torch.rand(count, generator=generator)
    return ((1 - (1 - u) ** bias) * steps).long().clamp(0, steps - 1)


@dataclass(frozen=True)
class Loss:
    """Mean loss, and what it is made of (float32, detached)."""

    mean: torch.Tensor
    per_pair: torch.Tensor
    """[B]"""
    timesteps: torch.Tensor
    """[B]"""


def training_loss(
    model: torch.nn.Module,
    scheduler: CogVideoXDDIMScheduler,
    latents: torch.Tensor,
    first: torch.Tensor,
    raymaps: torch.Tensor,
    text: torch.Tensor,
    timesteps: torch.Tensor,
    noise: torch.Tensor,
    dtype: torch.dtype,
) -> Loss:
    """Return the v-prediction loss of latents [B, A, F, C, h, w]; both agents share a timestep.

    `first` [B, A, 1, C, h, w] is the image latent, raymaps [B, A, F, 24, h, w], text [B, L, D]. Noising, target and
    loss are float32 (in bfloat16 sigma(0) becomes 0, trap 18); only the model sees `dtype`.
    """
    latents, noise = latents.float(), noise.float()
    each = timesteps.repeat_interleave(latents.shape[1])
    noisy = scheduler.add_noise(latents.flatten(0, 1), noise.flatten(0, 1), each).view_as(latents)
    target = scheduler.get_velocity(latents.flatten(0, 1), noise.flatten(0, 1), each).view_as(latents)
    inputs = torch.cat([noisy, condition(first.float(), latents.shape[2])], 3)
    predicted = model(inputs.to(dtype), text.to(dtype), timesteps, raymaps=raymaps.to(dtype)).sample.float()
    per_pair = F.mse_loss(predicted, target, reduction="none").flatten(1).mean(1)
    return Loss(per_pair.mean(), per_pair.detach(), timesteps)


def loss_by_bucket(loss: Loss, steps: int = 1000) -> dict[str, tuple[float, int]]:
    """Return sum and count of the loss by timestep quarter: 't000-250', ..."""
    rows = {}
    width = steps // BUCKETS
    for bucket in range(BUCKETS):
        chosen = (loss.timesteps // width).clamp(max=BUCKETS - 1) == bucket
        rows[f"t{bucket * width:03d}-{(bucket + 1) * width:03d}"] = (
            float(loss.per_pair[chosen].sum()),
            int(chosen.sum()),
        )
    return rows
