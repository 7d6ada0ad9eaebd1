"""What a training needs of disk and memory, by arithmetic from its configuration, against what there is.

The figures are floors: what is refused cannot work, what passes may still be too much (buckets, fragmentation, other
processes). n: parameters, b: bytes of one (2 in bfloat16, 4 in float32).

checkpoint   12 n of AdamW's state in float32 (weights, two moments), b n of weights beside it, the model to sample with
             (b n, or 4 n where weights are averaged) and the averages (4 n)
a process    weights b n, gradients b n and AdamW's 12 n, cut by ZeRO's stage among the processes; averages 4 n; the
             input of every block, and without gradient checkpointing about twelve such tensors a block
at start     4 n in the process's own memory, and 4 m of a base of m parameters that is loaded beside it
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from infra.deepspeed_config import use_bf16
from infra.storage import StorageError, require_free_space
from model.build import empty_transformer
from model.presets import Preset
from model.transformer import ADDED_PREFIXES

AGENTS = 2
ADAMW_BYTES = 12
TENSORS_A_BLOCK = 12
"""Kept for the backward pass without checkpointing: norms, queries, keys, values, attention, the inner ones."""


@dataclass(frozen=True)
class Needs:
    """Bytes."""

    checkpoint: float
    on_device: float
    """Of one process, where it computes."""
    at_start: float
    """Of one process, in the machine's memory, while it builds the model."""


def needs_of(preset: Preset, processes: int) -> Needs:
    """Return what a training needs. PresetError for a base that does not fit."""
    model, training = empty_transformer(preset), preset.training
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    parameters = sum(sizes.values())
    base = sum(size for name, size in sizes.items() if not name.startswith(ADDED_PREFIXES))
    each = 2 if use_bf16(training.precision) else 4
    average = 4 if training.ema_decay else 0
    gradients = each / (processes if training.zero_stage >= 2 else 1)
    weights = each / (processes if training.zero_stage == 3 else 1)
    blocks = len(model.transformer_blocks) + len(model.cross_agent_blocks)
    frames, _, height, width = preset.latent_shape
    tokens = AGENTS * frames * height * width // model.config.patch_size**2
    inputs = tokens * model.config.num_attention_heads * model.config.attention_head_dim * each
    kept = inputs * blocks * (1 if training.gradient_checkpointing else TENSORS_A_BLOCK) * training.micro_batch_size
    return Needs(
        parameters * (ADAMW_BYTES + each + (average or each) + average),
        parameters * (weights + gradients + ADAMW_BYTES / processes + average) + kept,
        4 * (parameters + (base if preset.transformer.base_model else 0)),
    )


def free_memory() -> float:
    """Return the bytes that this process may still take: the machine's, or its control group's where that is less."""
    free = float(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:  # no control groups of version 2 here
        return free
    return free if limit == "max" else min(free, float(limit) - float(used) + cached(group))


def cached(group: Path) -> float:
    """Return what a control group holds of files, which the kernel gives back when it is needed."""
    lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
    return float({name: value for name, value in lines}.get("inactive_file", 0))


def check_memory(preset: Preset, processes: int) -> None:
    """Raise StorageError for a training that needs more memory than there is, on the machine or on each card."""
    needs = needs_of(preset, processes)
    own = needs.at_start
    if torch.cuda.is_available():
        card = float(torch.cuda.get_device_properties(0).total_memory)
        if needs.on_device > card:
            raise StorageError(
                f"a training process needs at least {needs.on_device / 1e9:.1f} GB of GPU memory and a card has "
                f"{card / 1e9:.1f} GB: take more processes (one a card), a smaller micro_batch_size or preset, or "
                "gradient_checkpointing."
            )
    else:
        own = max(own, needs.on_device)
    free = free_memory()
    if processes * own > free:
        raise StorageError(
            f"{processes} training processes need at least {processes * own / 1e9:.1f} GB of memory and "
            f"{free / 1e9:.1f} GB are free: take fewer processes, a smaller preset, or end what else runs here."
        )


def check_disk(places: dict[Path, float]) -> None:
    """Raise StorageError when a disk has less free than what will be written to it; folders of one disk share it."""
    disks: dict[int, tuple[Path, float]] = {}
    for folder, needed in places.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        first, before = disks.get(there.stat().st_dev, (there, 0.0))
        disks[there.stat().st_dev] = (first, before + needed)
    for folder, needed in disks.values():
        require_free_space(folder, int(needed))
