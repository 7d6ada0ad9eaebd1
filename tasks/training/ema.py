"""A running mean of the trained weights, float32, the same on every rank (ZeRO 1 and 2 keep whole weights)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from infra.reading import one_line
from tasks.runs.errors import RunError
from tasks.training.errors import RESTORE


class WeightAverage:
    """mean <- decay * mean + (1 - decay) * weights; the decay grows to its value over the first steps."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.names, self.weights = list(trained), [parameter.detach() for parameter in trained.values()]
        self.means = [weight.float().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` optimiser steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [weight if weight.dtype == torch.float32 else weight.float() for weight in self.weights]
        torch._foreach_lerp_(self.means, weights, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the means in the place of the weights for a while."""
        kept = [weight.clone() for weight in self.weights]
        torch._foreach_copy_(self.weights, self.means)
        try:
            yield
        finally:
            torch._foreach_copy_(self.weights, kept)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: mean.cpu() for name, mean in zip(self.names, self.means, strict=True)}

    def save(self, path: Path) -> None:
        save_file(self.state_dict(), path)

    def load(self, path: Path) -> None:
        """Read what `save` wrote. RunError for a damaged file, or one of another model."""
        try:
            stored = load_file(path)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path} cannot be read ({one_line(error)}): {RESTORE}") from error
        wanted = {name: mean.shape for name, mean in zip(self.names, self.means, strict=True)}
        if {name: value.shape for name, value in stored.items()} != wanted:
            raise RunError(f"{path} holds other weights than this model's: {RESTORE}")
        for name, mean in zip(self.names, self.means, strict=True):
            mean.copy_(stored[name])
