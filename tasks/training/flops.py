"""Model FLOPs of a training pair, counted, and what share of the hardware's peak they use."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.presets import Preset
from model.trainable import choose_trained
from model.transformer import ShareVerseTransformer3DModel

AGENTS = 2
PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
"""Dense bfloat16 FLOP/s of the vendor's data sheets (SXM), by a part of the card's name."""


def flops_per_pair(model: ShareVerseTransformer3DModel, preset: Preset) -> float:
    """Return the model FLOPs of one pair in a training step: three times the forward pass's matrix products.

    The backward pass counts twice the forward's, or with a frozen base what it has; recomputation under gradient
    checkpointing is not counted, so that MFU is not flattered by it. Counted on the meta device, nothing is computed.
    """
    frames, channels, height, width = preset.latent_shape
    with torch.device("meta"):
        copy = ShareVerseTransformer3DModel.from_config(model.config)
        hidden = torch.empty(1, AGENTS, frames, 2 * channels, height, width)
        text = torch.empty(1, preset.transformer.text_tokens, preset.transformer.text_embed_dim)
        rays = torch.empty(1, AGENTS, frames, copy.raymap_channels, height, width)
        timestep = torch.zeros(1, dtype=torch.long)
        choose_trained(copy, preset)
    every_weight = preset.training.trainable == "all"
    with torch.set_grad_enabled(not every_weight), FlopCounterMode(display=False) as counter:
        predicted = copy(hidden, text, timestep, raymaps=rays).sample
        if not every_weight:
            torch.autograd.backward(predicted.sum())
    return counter.get_total_flops() * (3.0 if every_weight else 1.0)


def peak_flops(device: torch.device) -> float | None:
    """Return the device's bfloat16 peak; None where no data sheet gives one (CPUs)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_BF16.items() if part in name), None)
