"""Whether a training goes on: its loss, gradient, weights and optimizer state must be finite on every rank.

Every check is collective: each rank calls it, and each comes to the same end. A step costs one small all-reduce.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from model.objective import Loss
from tasks.training.errors import DivergedError

MOST_TIMESTEPS = 32
"""Shown in a message."""
ADVICE = (
    "The training ends here, and checkpoints from before are kept: running it again ends alike; train with a lower "
    "learning_rate or more warmup_steps."
)


def check_step(step: int, rate: float, losses: Sequence[Loss], squares: torch.Tensor) -> torch.Tensor:
    """Return the squared gradient norms over all ranks, by group; raise DivergedError before they reach the weights.

    `losses` are those of this rank's forward passes in optimiser step `step` (from 1), `squares` this rank's parts of
    the squared norms [G] float64.
    """
    loss = torch.stack([each.per_pair.sum() for each in losses]).sum().to(squares)
    sums = torch.cat([loss[None], squares])
    torch.distributed.all_reduce(sums)
    found = sums.cpu()
    total, norm = float(found[0]), math.sqrt(float(found[1:].sum()))
    if math.isfinite(total) and math.isfinite(norm):
        return found[1:]
    pairs = sum(len(each.per_pair) for each in losses) * torch.distributed.get_world_size()
    timesteps = timesteps_of_batch(losses)
    some = ", ".join(map(str, timesteps[:MOST_TIMESTEPS])) + (", ..." if len(timesteps) > MOST_TIMESTEPS else "")
    what = "loss" if not math.isfinite(total) else "gradient norm"
    raise DivergedError(
        f"The training diverged in step {step}: its {what} is not finite (loss {total / pairs:g}, gradient norm "
        f"{norm:g}, learning rate {rate:g}, timesteps {some}). {ADVICE}",
        step,
        rate,
    )


def timesteps_of_batch(losses: Sequence[Loss]) -> list[int]:
    """Return the timesteps of the whole batch in rising order; as many on every rank."""
    mine = torch.cat([each.timesteps for each in losses])
    everywhere = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(everywhere, mine)
    return sorted(torch.cat(everywhere).tolist())


def all_finite(tensors: Iterable[torch.Tensor], device: torch.device) -> bool:
    """Tell whether the tensors are finite on every rank; some may be empty, or on another device."""
    peaks = [torch.linalg.vector_norm(tensor.detach(), math.inf) for tensor in tensors if tensor.numel()]
    finite = torch.stack([peak.float().to(device) for peak in peaks]).isfinite().all().to(torch.int32)
    torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
    return bool(finite)


def check_weights(step: int, rate: float, tensors: Iterable[torch.Tensor], device: torch.device) -> None:
    """Raise DivergedError when weights, averages or optimizer state are not finite after optimiser step `step`.

    To be called before they are looked at or stored: an update may overflow though loss and gradient were finite.
    """
    if not all_finite(tensors, device):
        raise DivergedError(
            f"The training diverged in step {step}: its weights or optimizer state are not finite after the update "
            f"(learning rate {rate:g}). {ADVICE}",
            step,
            rate,
        )


def check_validation(step: int, rate: float, loss: float) -> None:
    """Raise DivergedError for a validation loss, equal on all ranks, that is not finite."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"The training diverged in step {step}: its validation loss is {loss:g} (learning rate {rate:g}). {ADVICE}",
            step,
            rate,
        )
