"""Builds DeepSpeed's configuration from plain values, and keeps DeepSpeed from compiling anything."""

from __future__ import annotations

from typing import Any

COMPILED_AT_START = "deepspeed_shm_comm"
"""The C++ op that DeepSpeed would build on a CPU when it starts; it only serves inference (trap 27: DeepSpeed compiles
ops)."""

REDUCED_ELEMENTS = 500_000_000
"""Gradients that are reduced at once, in a buffer of that length (DeepSpeed's own value)."""


class DeepSpeedConfigError(ValueError):
    """Values that DeepSpeed cannot train with."""


def accumulation_steps(batch_size: int, micro_batch_size: int, processes: int) -> int:
    """Return the forward passes per process and step. DeepSpeedConfigError where the batch does not divide evenly."""
    samples_per_pass = micro_batch_size * processes
    if batch_size % samples_per_pass:
        raise DeepSpeedConfigError(
            f"batch_size {batch_size} is no multiple of micro_batch_size {micro_batch_size} x processes {processes} = "
            f"{samples_per_pass}: change one of the three."
        )
    return batch_size // samples_per_pass


def deepspeed_config(
    *,
    batch_size: int,
    micro_batch_size: int,
    processes: int,
    zero_stage: int,
    bf16: bool,
    max_grad_norm: float,
    trained_parameters: int = REDUCED_ELEMENTS,
    offload_optimizer: bool = False,
) -> dict[str, Any]:
    """Return the engine's configuration. The optimiser is passed in, on the host too; DeepSpeed's would be compiled.

    `trained_parameters`: their number, because a buffer for more gradients than there are would lie idle.
    """
    offload = {"offload_optimizer": {"device": "cpu", "pin_memory": True}} if offload_optimizer else {}
    return {
        "train_batch_size": batch_size,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps(batch_size, micro_batch_size, processes),
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": bf16},
        "zero_optimization": {
            "stage": zero_stage,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_bucket_size": min(REDUCED_ELEMENTS, trained_parameters),
            **offload,
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }


def without_compiled_ops() -> None:
    """Keep `init_distributed` from compiling; call it before that. DeepSpeedConfigError if DeepSpeed has changed."""
    import deepspeed.ops

    compatible_ops = getattr(deepspeed.ops, "__compatible_ops__", {})
    if COMPILED_AT_START not in compatible_ops:
        raise DeepSpeedConfigError(
            f"this DeepSpeed has no {COMPILED_AT_START} among its ops: install the version in constraints.txt."
        )
    compatible_ops[COMPILED_AT_START] = False


def multiplies_bf16() -> bool:
    """Tell whether the hardware multiplies bfloat16: CUDA cards from Ampere on, CPUs by their flags (trap 40: bfloat16
    needs hardware)."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def use_bf16(precision: str) -> bool:
    """Tell whether to train in bfloat16 for a preset's precision: "bf16", "fp32" or "auto"."""
    return precision == "bf16" or (precision == "auto" and multiplies_bf16())
