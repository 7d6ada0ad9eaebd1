"""What a training needs, by arithmetic, against what a pass and a step really take on this CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from model.build import text_embedding, transformer_from_scratch
from model.objective import noise_schedule, training_loss
from model.trainable import choose_trained
from tasks.training.live_memory import drop_gradient, pass_memory
from tasks.training.needs import RUNTIME_BYTES, needs_of
from tests.tasks.training.conftest import TINY
from tests.tasks.training.peak_of_step import peak_bytes, random_batch

LARGER = TINY.replace(
    num_layers=8, num_attention_heads=4, attention_head_dim=32, height=64, width=96, micro_batch_size=2
)
"""Large enough that activations count, and with more periods than are counted."""
RANK = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "DS_ACCELERATOR": "cpu"}


@pytest.mark.parametrize(("checkpointing", "trainable"), [(False, "all"), (True, "all"), (True, "lora")])
def test_a_pass_takes_the_memory_that_is_counted(checkpointing, trainable):
    base = "" if trainable == "all" else "nobody/none"  # which is not here, so that the preset's sizes count
    preset = LARGER.replace(gradient_checkpointing=checkpointing, trainable=trainable, base_model=base)
    model, text, scheduler = transformer_from_scratch(preset), text_embedding(LARGER), noise_schedule(preset.objective)
    choose_trained(model, preset)
    if checkpointing:
        model.enable_gradient_checkpointing()
    for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
        parameter.register_post_accumulate_grad_hook(drop_gradient)

    def one_pass():
        training_loss(model, scheduler, random_batch(preset), text, torch.float32).mean.backward()

    one_pass()
    assert pass_memory(preset).peak == pytest.approx(peak_bytes(one_pass), rel=0.05)


@pytest.mark.slow
def test_a_training_takes_the_memory_of_the_arithmetic(tmp_path):
    preset = LARGER.replace(num_layers=2, num_attention_heads=8)
    command = [
        sys.executable,
        "-m",
        "tests.tasks.training.peak_of_step",
        json.dumps(preset.to_dict()),
        tmp_path / "met",
    ]
    done = subprocess.run(command, env=os.environ | RANK, stdout=subprocess.PIPE, text=True, check=True)
    needs = needs_of(preset, 1)
    assert needs.on_device - RUNTIME_BYTES == pytest.approx(int(done.stdout.split()[-1]), rel=0.1)
    assert needs.resident > needs.kept / 2  # so that weights count as well as activations
