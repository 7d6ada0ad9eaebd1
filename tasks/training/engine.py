"""The DeepSpeed engine of one rank: ZeRO around the transformer and its optimiser."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path

import torch

from infra.deepspeed_config import deepspeed_config, use_bf16, without_compiled_ops
from infra.reading import one_line
from model.build import build_transformer
from model.presets import Preset
from model.trainable import choose_trained
from model.transformer import ShareVerseTransformer3DModel
from tasks.runs.errors import RunError
from tasks.training.errors import RESTORE
from tasks.training.optimizer import group_of, make_optimizer

UNREADABLE = (
    AssertionError, AttributeError, EOFError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError,
    pickle.UnpicklingError,
)  # fmt: skip
"""What DeepSpeed and torch raise for state files that are missing, truncated or altered."""


def learning_rate_at(step: int, peak: float, warmup_steps: int, train_steps: int, schedule: str) -> float:
    """Return the rate of optimiser step `step` (from 0): a linear warm-up, then constant or a cosine down to 5 %."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    share = (step - warmup_steps) / max(1, train_steps - warmup_steps)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def init_distributed(device: torch.device, rendezvous: str | None, rank: int, processes: int) -> None:
    """Join the process group: through a file on one machine (so only gloo listens, on loopback), or as torchrun says.

    gloo on a CPU, nccl on GPUs.
    """
    import deepspeed

    if device.type == "cpu":
        without_compiled_ops()
    deepspeed.init_distributed(
        dist_backend="nccl" if device.type == "cuda" else "gloo",
        auto_mpi_discovery=False,
        verbose=False,
        init_method=f"file://{rendezvous}" if rendezvous else None,
        rank=rank if rendezvous else -1,
        world_size=processes if rendezvous else -1,
    )


def send_from_first(tensor: torch.Tensor) -> None:
    """Give a tensor of rank 0 to all ranks, in place; as bytes, because gloo does not know every dtype."""
    torch.distributed.broadcast(tensor.view(torch.uint8), 0)


class Engine:
    """DeepSpeed's engine and what training asks of it."""

    def __init__(self, preset: Preset, processes: int, device: torch.device) -> None:
        import deepspeed

        training = preset.training
        self.preset, self.stage = preset, training.zero_stage
        self.frozen_base = training.trainable != "all"
        self.dtype = torch.bfloat16 if use_bf16(training.precision) else torch.float32
        first = torch.distributed.get_rank() == 0
        model = build_transformer(preset, self.dtype, device, send_from_first, reads=first)
        choose_trained(model, preset)
        torch.nn.Module.to(model, self.dtype)
        if training.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        optimizer = make_optimizer(model, training)
        self.group_names = [group["name"] for group in optimizer.param_groups]
        config = deepspeed_config(
            batch_size=training.batch_size,
            micro_batch_size=training.micro_batch_size,
            processes=processes,
            zero_stage=training.zero_stage,
            bf16=self.dtype == torch.bfloat16,
            max_grad_norm=training.max_grad_norm,
            offload_optimizer=training.offload_optimizer,
            trained_parameters=sum(part.numel() for group in optimizer.param_groups for part in group["params"]),
        )
        self.deepspeed, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)

    @property
    def model(self) -> ShareVerseTransformer3DModel:
        return self.deepspeed.module

    def set_learning_rate(self, rate: float) -> None:
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = rate

    def backward(self, loss: torch.Tensor) -> None:
        self.deepspeed.backward(loss)

    def step(self) -> None:
        """To be called after every backward pass; the weights change when the last of a step's passes is in."""
        self.deepspeed.step()

    def gradient_squares(self) -> torch.Tensor:
        """Return this rank's parts of the squared gradient norms by group, [G] float64, before clipping.

        Between the last backward pass of a step and `step`; their sum over the ranks is the whole.
        """
        squares = torch.zeros(len(self.group_names), dtype=torch.float64, device=self.model.device)
        for number, parts in enumerate(self.gradients()):
            if parts:
                norms = torch._foreach_norm(parts, 2, dtype=torch.float32)
                squares[number] = torch.stack(list(norms)).double().square().sum()
        return squares

    def gradients(self) -> list[list[torch.Tensor]]:
        """Return this rank's parts of the gradient, one list per group."""
        if self.preset.training.offload_optimizer:
            self.deepspeed.optimizer._wait_for_offload_copies()
            return [[part.grad] for part in self.deepspeed.optimizer.single_partition_of_fp32_groups]
        if self.stage < 3:
            averaged = self.deepspeed.optimizer.averaged_gradients
            return [averaged.get(number) or [] for number in range(len(self.group_names))]
        from deepspeed.utils import safe_get_local_grad

        groups: dict[str, list[torch.Tensor]] = {name: [] for name in self.group_names}
        for name, parameter in self.model.named_parameters():
            gradient = safe_get_local_grad(parameter)
            if gradient is not None:
                groups[group_of(name)].append(gradient)
        return list(groups.values())

    def named_norms(self, squares: torch.Tensor) -> dict[str, float]:
        """Return norms by the names that rows have, of squares [G] over all ranks: "" is the whole gradient's."""
        norms = zip(self.group_names, squares.sqrt().tolist(), strict=True)
        return {"": float(squares.sum().sqrt())} | {f"_{name}": value for name, value in norms}

    def state(self) -> Iterator[torch.Tensor]:
        """Yield this rank's weights, the optimizer's own copies of them, and its moments: of those in 8 bits their
        scales."""
        for parameter in self.model.parameters():
            yield getattr(parameter, "ds_tensor", parameter)  # ZeRO-3 keeps a rank's part there
        optimizer = self.deepspeed.optimizer.optimizer
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield parameter
                values = optimizer.state[parameter].values()
                yield from (value for value in values if torch.is_tensor(value) and value.is_floating_point())

    def save(self, folder: Path) -> None:
        """Write the engine's state, without a frozen base, which is read where it lies; all ranks."""
        self.deepspeed.save_checkpoint(
            str(folder), tag="state", save_latest=False, exclude_frozen_parameters=self.frozen_base
        )

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; all ranks, as many as wrote it. RunError when it is missing or damaged."""
        try:
            loaded, _ = self.deepspeed.load_checkpoint(
                str(folder), tag="state", load_module_strict=not self.frozen_base
            )
        except UNREADABLE as error:
            raise RunError(f"{folder} cannot be read ({one_line(error)}): {RESTORE}") from error
        if loaded is None:
            raise RunError(f"{folder} holds no state of the optimizer: {RESTORE}")

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the weights on the CPU, on rank 0, and nothing on the others; all ranks, because stage 3 gathers
        them."""
        if self.stage == 3:
            return self.deepspeed._zero3_consolidated_16bit_state_dict() or {}
        if torch.distributed.get_rank():
            return {}
        return {name: value.detach().cpu() for name, value in self.model.state_dict().items()}
