"""What there is of cards, memory and disk, against what a training needs (needs.py)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from infra.deepspeed_config import DeepSpeedConfigError, accumulation_steps
from infra.storage import StorageError, require_free_space
from model.presets import Preset
from tasks.training.needs import needs_of

GB = 1e9
MAX_EIGHT_BIT = 2**31
"""Parameters that bitsandbytes' kernels count in 32 bits."""


@dataclass(frozen=True)
class Machine:
    """Bytes. Without GPUs a training computes on the host."""

    gpus: int
    gpu_memory: float
    """Of each."""
    host_memory: float
    """That is free for the training."""


def this_machine() -> Machine:
    """Return what this machine has."""
    if not torch.cuda.is_available():
        return Machine(0, 0.0, free_memory())
    return Machine(torch.cuda.device_count(), float(torch.cuda.get_device_properties(0).total_memory), free_memory())


def machine_of(gpus: int | None, gpu_memory_gb: float | None, host_memory_gb: float | None) -> Machine:
    """Return a machine as described; what is not said is this one's, and where it has no GPU one of 80 GB."""
    here = this_machine()
    if gpus is None:
        gpus = here.gpus or int(gpu_memory_gb is not None)
    gpu_memory = gpu_memory_gb * GB if gpu_memory_gb is not None else here.gpu_memory or 80 * GB
    return Machine(gpus, gpu_memory, here.host_memory if host_memory_gb is None else host_memory_gb * GB)


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


def host_memory_needed(preset: Preset, processes: int, machine: Machine) -> float:
    """Return the bytes of the host that all processes need together."""
    needs = needs_of(preset, processes)
    beside_cards = processes * needs.host + needs.saving
    return processes * needs.offloaded + (beside_cards if machine.gpus else processes * needs.on_device)


def misfit(preset: Preset, processes: int, machine: Machine) -> str:
    """Return in one sentence why a training does not fit a machine, or nothing."""
    training = preset.training
    try:
        accumulation_steps(training.batch_size, training.micro_batch_size, processes)
    except DeepSpeedConfigError as error:
        return str(error)
    needs = needs_of(preset, processes)
    if training.optimizer == "adamw8bit" and needs.largest_part >= MAX_EIGHT_BIT:
        return (
            f"a training process of preset {preset.name} updates {needs.largest_part / 1e9:.1f} billion parameters at "
            "once and bitsandbytes 2.1: take more processes, or set optimizer to adamw."
        )
    needed = needs.on_device
    if machine.gpus and needed > machine.gpu_memory:
        return (
            f"a training process of preset {preset.name} needs at least {needed / GB:.1f} GB of GPU memory and a card "
            f"has {machine.gpu_memory / GB:.1f} GB: take more processes (one a card), a smaller micro_batch_size, or a "
            f"preset that fits (`shareverse preflight {preset.name}` names one)."
        )
    needed = host_memory_needed(preset, processes, machine)
    if needed > machine.host_memory:
        return (
            f"{processes} training processes of preset {preset.name} need at least {needed / GB:.1f} GB of memory and "
            f"{machine.host_memory / GB:.1f} GB are free: take fewer processes, end what else runs here, or take a "
            f"preset that fits (`shareverse preflight {preset.name}` names one)."
        )
    return ""


def check_memory(preset: Preset, processes: int) -> None:
    """Raise StorageError for a training that needs more memory than there is, on the machine or on each card."""
    if why := misfit(preset, processes, this_machine()):
        raise StorageError(why)


def check_disk(places: dict[Path, float]) -> None:
    """Raise StorageError when a disk has less free than what will be written to it; folders of one disk share it."""
    disks: dict[int, tuple[Path, float]] = {}
    for folder, needed in places.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        first, before = disks.get(there.stat().st_dev, (there, 0.0))
        disks[there.stat().st_dev] = (first, before + needed)
    for folder, needed in disks.values():
        require_free_space(folder, int(needed))
