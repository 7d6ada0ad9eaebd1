"""DeepSpeed's configuration from plain values, and that nothing is compiled (traps 27 and 28)."""

from __future__ import annotations

import pytest
import torch

from infra.deepspeed_config import (
    COMPILED_AT_START,
    DeepSpeedConfigError,
    accumulation_steps,
    deepspeed_config,
    use_bf16,
    without_compiled_ops,
)
from tasks.training.engine import init_distributed


@pytest.mark.parametrize(("batch", "micro", "processes", "steps"), [(8, 4, 2, 1), (8, 4, 1, 2), (16, 1, 8, 2)])
def test_accumulation_makes_up_the_batch(batch, micro, processes, steps):
    assert accumulation_steps(batch, micro, processes) == steps


def test_a_batch_that_does_not_divide_is_refused_in_one_sentence():
    with pytest.raises(DeepSpeedConfigError, match=r"batch_size 8 .* micro_batch_size 4 x processes 3 = 12: "):
        accumulation_steps(8, 4, 3)


def test_deepspeed_takes_the_configuration():
    from deepspeed.runtime.config import DeepSpeedConfig

    values = deepspeed_config(batch_size=8, micro_batch_size=2, processes=1, zero_stage=2, bf16=True, max_grad_norm=0.5)
    config = DeepSpeedConfig(values)
    assert (config.train_batch_size, config.gradient_accumulation_steps, config.zero_optimization_stage) == (8, 4, 2)
    assert config.gradient_clipping == 0.5
    assert config.zero_allow_untested_optimizer
    assert config.zero_config.offload_optimizer is None
    host = DeepSpeedConfig(
        deepspeed_config(
            batch_size=8,
            micro_batch_size=2,
            processes=1,
            zero_stage=2,
            bf16=True,
            max_grad_norm=0.5,
            offload_optimizer=True,
        )
    )
    assert host.zero_config.offload_optimizer.device == "cpu"
    assert not host.zero_force_ds_cpu_optimizer


def test_the_op_that_would_be_compiled_is_off():
    from deepspeed.comm.torch import build_shm_op

    without_compiled_ops()
    assert build_shm_op() is None


def test_another_deepspeed_without_that_op_is_noticed(monkeypatch):
    import deepspeed.ops

    monkeypatch.setattr(deepspeed.ops, "__compatible_ops__", {})
    with pytest.raises(DeepSpeedConfigError, match=f"no {COMPILED_AT_START} among its ops"):
        without_compiled_ops()


@pytest.mark.parametrize(("device", "backend"), [("cuda", "nccl"), ("cpu", "gloo")])
def test_a_gpu_is_not_asked_for_the_op_that_only_cpus_have(monkeypatch, device, backend):
    """On CUDA DeepSpeed lists other ops: to ask for this one ended every training before its first step."""
    import deepspeed

    joined = {}
    monkeypatch.setattr(deepspeed.ops, "__compatible_ops__", {COMPILED_AT_START: True} if device == "cpu" else {})
    monkeypatch.setattr(deepspeed, "init_distributed", lambda **given: joined.update(given))
    init_distributed(torch.device(device), None, 0, 1)
    assert joined["dist_backend"] == backend


def test_precision_is_resolved_by_the_hardware(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert [use_bf16(precision) for precision in ("auto", "bf16", "fp32")] == [False, True, False]
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert [use_bf16(precision) for precision in ("auto", "bf16", "fp32")] == [True, True, False]
