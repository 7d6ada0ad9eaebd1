"""The DeepSpeed engine of one rank: ZeRO around the transformer, torch's AdamW, three groups of parameters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from infra.deepspeed_config import deepspeed_config, use_bf16, without_compiled_ops
from model.build import build_transformer
from model.presets import Preset
from model.transformer import ShareVerseTransformer3DModel

GROUPS = ("base", "raymap", "cross")
"""CogVideoX's own parameters, the raymap encoders', the cross-agent blocks'."""


def group_of(name: str) -> str:
    """Return the group of a parameter by its name."""
    if name.startswith("raymap_encoders."):
        return "raymap"
    return "cross" if name.startswith(("cross_agent_blocks.", "agent_embedding")) else "base"


def parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Return AdamW's groups, those that have parameters, so that ZeRO keeps their gradients apart."""
    groups: dict[str, list[torch.nn.Parameter]] = {name: [] for name in GROUPS}
    for name, parameter in model.named_parameters():
        groups[group_of(name)].append(parameter)
    return [{"name": name, "params": parameters} for name, parameters in groups.items() if parameters]


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


class Engine:
    """DeepSpeed's engine and what training asks of it."""

    def __init__(self, preset: Preset, processes: int, device: torch.device) -> None:
        import deepspeed

        training = preset.training
        self.preset, self.stage = preset, training.zero_stage
        self.dtype = torch.bfloat16 if use_bf16(training.precision) else torch.float32
        model = build_transformer(preset).to(self.dtype)
        if training.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        optimizer = torch.optim.AdamW(
            parameter_groups(model), lr=training.learning_rate, betas=(0.9, 0.95), weight_decay=training.weight_decay
        )
        self.group_names = [group["name"] for group in optimizer.param_groups]
        config = deepspeed_config(
            batch_size=training.batch_size,
            micro_batch_size=training.micro_batch_size,
            processes=processes,
            zero_stage=training.zero_stage,
            bf16=self.dtype == torch.bfloat16,
            max_grad_norm=training.max_grad_norm,
        )
        self.deepspeed, *_ = deepspeed.initialize(model=model.to(device), optimizer=optimizer, config=config)

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

    def grad_norms(self) -> dict[str, float]:
        """Return the gradient's norm by group before clipping; between the last backward and `step`, on all ranks."""
        zero = self.deepspeed.optimizer
        device = self.model.device
        squares = torch.zeros(len(self.group_names), device=device)
        for number in range(len(self.group_names)):
            if self.stage < 3:
                parts = zero.averaged_gradients.get(number) or []
            else:
                from deepspeed.utils import safe_get_local_grad

                group = [p for n, p in self.model.named_parameters() if group_of(n) == self.group_names[number]]
                parts = [grad for grad in map(safe_get_local_grad, group) if grad is not None]
            squares[number] = sum(float(part.float().square().sum()) for part in parts)
        torch.distributed.all_reduce(squares)
        norms = dict(zip(self.group_names, squares.sqrt().tolist(), strict=True))
        return {"": float(squares.sum().sqrt())} | {f"_{name}": value for name, value in norms.items()}

    def save(self, folder: Path) -> None:
        """Write the engine's state; all ranks."""
        self.deepspeed.save_checkpoint(str(folder), tag="state", save_latest=False)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; all ranks, as many as wrote it."""
        loaded, _ = self.deepspeed.load_checkpoint(str(folder), tag="state")
        if loaded is None:
            raise FileNotFoundError(f"{folder} holds no engine state: delete that checkpoint and run again.")

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the weights on the CPU; all ranks (stage 3 gathers them; others than rank 0 get nothing there)."""
        if self.stage == 3:
            return self.deepspeed._zero3_consolidated_16bit_state_dict() or {}
        return {name: value.detach().cpu() for name, value in self.model.state_dict().items()}
