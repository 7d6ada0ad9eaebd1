"""Checks that training can go on: loss, gradient, weights and optimizer state must be finite on every rank.

Every check is collective: all ranks call it and all reach the same verdict. A step costs one small all-reduce.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from model.objective import Loss
from tasks.training.errors import DivergedError

MAX_TIMESTEPS_SHOWN = 32
"""In an error message."""
ADVICE = (
    "The training ends here, and checkpoints from before are kept: running it again ends alike; train with a lower "
    "learning_rate or more warmup_steps."
)


def check_step(step: int, learning_rate: float, losses: Sequence[Loss], squares: torch.Tensor) -> torch.Tensor:
    """Return the squared gradient norms over all ranks, by group. DivergedError, before the weights change, if the loss
    or gradient is not finite.

    `losses` are those of this rank's forward passes in optimiser step `step` (from 1), `squares` this rank's share of
    the squared norms, [G] float64.
    """
    loss = torch.stack([each.per_pair.sum() for each in losses]).sum().to(squares)
    sums = torch.cat([loss[None], squares])
    torch.distributed.all_reduce(sums)
    sums = sums.cpu()
    total, norm = float(sums[0]), math.sqrt(float(sums[1:].sum()))
    if math.isfinite(total) and math.isfinite(norm):
        return sums[1:]
    pairs = sum(len(each.per_pair) for each in losses) * torch.distributed.get_world_size()
    timesteps = timesteps_of_batch(losses)
    shown = ", ".join(map(str, timesteps[:MAX_TIMESTEPS_SHOWN]))
    shown += ", ..." if len(timesteps) > MAX_TIMESTEPS_SHOWN else ""
    quantity = "loss" if not math.isfinite(total) else "gradient norm"
    raise DivergedError(
        f"The training diverged in step {step}: its {quantity} is not finite (loss {total / pairs:g}, gradient norm "
        f"{norm:g}, learning rate {learning_rate:g}, timesteps {shown}). {ADVICE}",
        step,
        learning_rate,
    )


def timesteps_of_batch(losses: Sequence[Loss]) -> list[int]:
    """Return the sorted timesteps of the whole batch; every rank must have equally many."""
    own = torch.cat([each.timesteps for each in losses])
    of_ranks = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(of_ranks, own)
    return sorted(torch.cat(of_ranks).tolist())


def all_finite(tensors: Iterable[torch.Tensor], device: torch.device) -> bool:
    """Tell whether all tensors are finite on every rank; they may be empty, or on another device."""
    peaks = [torch.linalg.vector_norm(tensor.detach(), math.inf) for tensor in tensors if tensor.numel()]
    finite = torch.stack([peak.float().to(device) for peak in peaks]).isfinite().all().to(torch.int32)
    torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
    return bool(finite)


def check_weights(step: int, learning_rate: float, tensors: Iterable[torch.Tensor], device: torch.device) -> None:
    """Raise DivergedError when weights, averages or optimizer state are not finite after optimiser step `step`.

    Call it before they are used or stored: an update may overflow although loss and gradient were finite.
    """
    if not all_finite(tensors, device):
        raise DivergedError(
            f"The training diverged in step {step}: its weights or optimizer state are not finite after the update "
            f"(learning rate {learning_rate:g}). {ADVICE}",
            step,
            learning_rate,
        )


def check_validation(step: int, learning_rate: float, loss: float) -> None:
    """Raise DivergedError for a validation loss, equal on all ranks, that is not finite."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"The training diverged in step {step}: its validation loss is {loss:g} (learning rate {learning_rate:g}). "
            f"{ADVICE}",
            step,
            learning_rate,
        )
