"""The training objective on CogVideoX's zero-terminal-SNR schedule, conditioned on the first frame.

The paper's recipe predicts v and generates the first frame too. The presets of our own base predict x, the clean
latents (Li and He, "Back to basics: let denoising generative models denoise", 2025: a narrow network cannot carry the
noise of tokens with many values), and are given the first frame clean, as generation chunk by chunk needs. Their
output is the change from a video that stands still, so an untrained one copies its picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import CogVideoXDDIMScheduler

from model.presets import ObjectiveConfig

TRAIN_TIMESTEPS = 1000
"""Of the noise schedule."""
BUCKETS = 4
"""The loss is also reported per quarter of the timesteps."""
PREDICTION_TYPES = {"v": "v_prediction", "x": "sample", "change": "sample"}
"""Names that diffusers' schedulers have for what is predicted; a change becomes x before they see it."""
MIN_NOISE = 0.05
"""Share of noise variance below which errors of x weigh no more: the loss of v would grow without limit there."""


def noise_schedule(config: ObjectiveConfig) -> CogVideoXDDIMScheduler:
    """Return the schedule of CogVideoX-5B, which the class's defaults are not (trap 18: scheduler defaults differ)."""
    return CogVideoXDDIMScheduler(
        prediction_type=PREDICTION_TYPES[config.prediction],
        rescale_betas_zero_snr=True,
        snr_shift_scale=config.snr_shift_scale,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def image_condition(image_latents: torch.Tensor, frames: int) -> torch.Tensor:
    """Return the image condition [B, A, F, C, h, w]: the latents of the picture [B, A, 1, C, h, w], then zeros, or
    those of a video that stands still [B, A, F, C, h, w] as they are."""
    later_frames = image_latents.new_zeros(
        *image_latents.shape[:2], frames - image_latents.shape[2], *image_latents.shape[3:]
    )
    return torch.cat([image_latents, later_frames], 2)


def drop_images(image_latents: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Return image latents [N, ...] with each of the N zeroed at the given probability (trap 19: training only)."""
    keep = torch.rand(len(image_latents), generator=generator) >= probability
    return image_latents * keep.view(-1, *[1] * (image_latents.ndim - 1)).to(image_latents.dtype)


def add_image_noise(images: torch.Tensor, mean: float, std: float, generator: torch.Generator) -> torch.Tensor:
    """Return first frames [N, ...] in [-1, 1] with noise of sigma = exp(N(mean, std)), to be encoded (trap 19:
    training only)."""
    sigma = torch.exp(mean + std * torch.randn(len(images), generator=generator))
    return images + sigma.view(-1, *[1] * (images.ndim - 1)) * torch.randn(images.shape, generator=generator)


def sample_timesteps(count: int, bias: float, generator: torch.Generator) -> torch.Tensor:
    """Return [count] timesteps. A bias of 1 is uniform, larger ones prefer the noisy end."""
    u = torch.rand(count, generator=generator)
    return ((1 - (1 - u) ** bias) * TRAIN_TIMESTEPS).long().clamp(0, TRAIN_TIMESTEPS - 1)


@dataclass(frozen=True)
class Batch:
    """B pairs of clips as `training_loss` takes them, on the training device."""

    latents: torch.Tensor
    """[B, A, F, C, h, w] float32"""
    image_latents: torch.Tensor
    """[B, A, 1, C, h, w] of the first frames, or [B, A, F, C, h, w] where they stand still; zeros where they are
    dropped"""
    raymaps: torch.Tensor
    """[B, A, F, 24, h, w]"""
    timesteps: torch.Tensor
    """[B], one per pair: its agents are equally noisy"""
    noise: torch.Tensor
    """[B, A, F, C, h, w]"""
    given_frames: int = 0
    """Leading latent frames, 0 or 1, that the model sees as `image_latents` in place of noise, and that have no loss"""
    predicts_change: bool = False
    """Whether the model's output is added to `image_latents`"""


@dataclass(frozen=True)
class Loss:
    """The loss of a batch, float32."""

    mean: torch.Tensor
    """[], with its graph"""
    per_pair: torch.Tensor
    """[B], detached"""
    timesteps: torch.Tensor
    """[B]"""


def training_loss(
    model: torch.nn.Module,
    scheduler: CogVideoXDDIMScheduler,
    batch: Batch,
    text: torch.Tensor,
    dtype: torch.dtype,
) -> Loss:
    """Return the loss of a batch, of v or x as the scheduler says, with the text embedding [1, L, D] that all pairs
    share.

    The model computes in `dtype`. Noise, target and loss stay float32 (trap 18: in bfloat16 sigma(0) becomes 0).
    """
    latents, noise, given = batch.latents.float(), batch.noise.float(), batch.given_frames
    image_latents = batch.image_latents.float()
    pairs, agents, frames = latents.shape[:3]
    timestep_per_agent = batch.timesteps.repeat_interleave(agents)
    noisy = scheduler.add_noise(latents.flatten(0, 1), noise.flatten(0, 1), timestep_per_agent).view_as(latents)
    noisy = put_given_frames(noisy, image_latents, given)
    inputs = torch.cat([noisy, image_condition(image_latents, frames)], 3).to(dtype)
    text = text.to(dtype).expand(pairs, -1, -1)
    predicted = model(inputs, text, batch.timesteps, raymaps=batch.raymaps.to(dtype)).sample.float()
    if batch.predicts_change:
        predicted = image_latents + predicted
    if scheduler.config.prediction_type == "sample":
        target, weight = latents, x_weight(scheduler, batch.timesteps)
    else:
        velocity = scheduler.get_velocity(latents.flatten(0, 1), noise.flatten(0, 1), timestep_per_agent)
        target, weight = velocity.view_as(latents), torch.ones_like(batch.timesteps, dtype=torch.float32)
    errors = F.mse_loss(predicted[:, :, given:], target[:, :, given:], reduction="none")
    per_pair = errors.flatten(1).mean(1) * weight
    return Loss(per_pair.mean(), per_pair.detach(), batch.timesteps)


def put_given_frames(latents: torch.Tensor, image_latents: torch.Tensor, given: int) -> torch.Tensor:
    """Return latents [B, A, F, C, h, w] with the first `given` frames replaced by those of image latents."""
    return torch.cat([image_latents[:, :, :given], latents[:, :, given:]], 2) if given else latents


def x_weight(scheduler: CogVideoXDDIMScheduler, timesteps: torch.Tensor) -> torch.Tensor:
    """Return what an error of x weighs at timesteps [B]: as in the loss of v, up to 1 / MIN_NOISE."""
    return 1 / (1 - scheduler.alphas_cumprod.to(timesteps.device)[timesteps]).clamp_min(MIN_NOISE).float()


BUCKET_WIDTH = TRAIN_TIMESTEPS // BUCKETS
BUCKET_NAMES = [f"t{start:03d}-{start + BUCKET_WIDTH:03d}" for start in range(0, TRAIN_TIMESTEPS, BUCKET_WIDTH)]


def loss_by_bucket(loss: Loss) -> torch.Tensor:
    """Return the sum of the losses and the number of pairs per quarter of the timesteps (BUCKET_NAMES), [BUCKETS, 2],
    where the losses are: nothing waits for them."""
    bucket = (loss.timesteps // BUCKET_WIDTH).clamp(max=BUCKETS - 1)
    inside = bucket == torch.arange(BUCKETS, device=bucket.device)[:, None]
    losses = loss.per_pair.detach().float()
    return torch.stack([torch.where(inside, losses, 0.0).sum(1), inside.sum(1).float()], 1)
