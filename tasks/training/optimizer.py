"""AdamW over groups of parameters: torch's, on the card or on the host, or bitsandbytes' with moments in 8 bits."""

from __future__ import annotations

from typing import Any

import torch

from infra.reading import one_line
from model.presets import TrainingConfig
from model.trainable import MATRIX, is_added
from tasks.runs.errors import RunError

BETAS = (0.9, 0.95)
GROUPS = ("base", "lora", "raymap", "cross")
"""CogVideoX's own parameters, their low-rank updates, the raymap encoders', the cross-agent blocks'."""


def group_of(name: str) -> str:
    """Return the group of a parameter by its name."""
    if name.startswith("raymap_encoders."):
        return "raymap"
    if is_added(name):
        return "cross"
    return "lora" if MATRIX.fullmatch(name) else "base"


def parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Return AdamW's groups of trained parameters, none of them empty, so that ZeRO keeps their gradients apart."""
    groups: dict[str, list[torch.nn.Parameter]] = {name: [] for name in GROUPS}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[group_of(name)].append(parameter)
    return [{"name": name, "params": parameters} for name, parameters in groups.items() if parameters]


def make_optimizer(model: torch.nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimiser of a model's trained parameters. RunError where its package is missing."""
    groups = parameter_groups(model)
    options: dict[str, Any] = {
        "lr": training.learning_rate,
        "betas": BETAS,
        "weight_decay": training.weight_decay,
    }
    if training.optimizer == "adamw8bit":
        return eight_bit_adamw()(groups, **options)
    # the fused kernel is as fast on a host as DeepSpeed's CPUAdam, which needs a compiler
    return torch.optim.AdamW(groups, **options, fused=True if training.offload_optimizer else None)


def eight_bit_adamw() -> type[torch.optim.Optimizer]:
    """Return bitsandbytes' AdamW. RunError where it is missing, or cannot be loaded."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except (ImportError, OSError, RuntimeError) as error:
        raise RunError(
            f"optimizer is 'adamw8bit', which needs the package bitsandbytes ({one_line(error)}): run "
            "`pip install 'shareverse[adamw8bit]'`, or set optimizer to adamw."
        ) from error
    return AdamW8bit
