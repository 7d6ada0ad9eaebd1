"""AdamW on the host, and with moments in 8 bits: what they train, keep and need."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from model.presets import Preset, PresetError
from tasks.runs.errors import RunError
from tasks.training.needs import needs_of
from tasks.training.optimizer import eight_bit_adamw
from tasks.training.resources import Machine, host_memory_needed, misfit
from tests.tasks.training.conftest import TINY

PAPER = Preset.load("paper-1x80gb")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_trains_as_adamw_does_and_resumes_bit_for_bit(tmp_path):
    pytest.importorskip("bitsandbytes")
    changes = [{}, {"offload_optimizer": True}, {"optimizer": "adamw8bit"}]
    module = "tests.tasks.training.engine_steps"
    command = [sys.executable, "-m", module, str(tmp_path / "met"), str(tmp_path), json.dumps(changes)]
    ranks = [
        subprocess.Popen(
            command,
            env=os.environ | {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "DS_ACCELERATOR": "cpu"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate()[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    plain, *others = json.loads(said[0].splitlines()[-1])
    assert plain["resumes"]
    for found, share in zip(others, (1e-3, 0.1), strict=True):
        assert found["resumes"]
        assert found["apart"] < share * plain["moved"]
        for ours, theirs in zip(found["rows"], plain["rows"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-2)


def test_what_is_missing_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(RunError, match=r"needs the package bitsandbytes .*shareverse\[adamw8bit\]'`, or set") as found:
        eight_bit_adamw()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"offload_optimizer": True, "optimizer": "adamw8bit"}, "the host's step is not made for 8 bits"),
        ({"offload_optimizer": True, "zero_stage": 3}, "only ZeRO-2 takes its state to the host"),
        ({"optimizer": "adamw8bit", "zero_stage": 3}, "8 bits are for ZeRO-1 and ZeRO-2"),
        ({"optimizer": "sgd"}, "give one of adamw, adamw8bit"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    with pytest.raises(PresetError, match=said):
        TINY.replace(**changes)


def test_a_run_with_adamw_keeps_its_id():
    assert not {"optimizer", "offload_optimizer"} & TINY.identity()["training"].keys()
    assert "positions" not in TINY.identity()["transformer"]


def test_the_arithmetic_follows():
    plain, eight, host = (
        needs_of(TINY.replace(**changes), 1)
        for changes in ({}, {"optimizer": "adamw8bit"}, {"offload_optimizer": True})
    )
    assert plain.optimizer == 12 * plain.trained
    assert eight.optimizer == pytest.approx(6 * plain.trained, rel=0.01)
    assert (host.optimizer, host.gradients, host.update) == (0, 0, 0)
    assert host.offloaded == (12 + 4 + 4 + 4) * host.trained  # tiny computes in float32, in two passes a step
    card = Machine(1, 80e9, 64e9)
    more = host_memory_needed(TINY.replace(offload_optimizer=True), 1, card) - host_memory_needed(TINY, 1, card)
    assert more == host.offloaded


def test_more_than_bitsandbytes_counts_is_refused():
    whole = PAPER.replace(trainable="all", optimizer="adamw8bit")
    assert "bitsandbytes 2.1: take more processes" in misfit(whole, 1, Machine(1, 500e9, 500e9))
    assert "bitsandbytes" not in misfit(whole, 4, Machine(4, 500e9, 500e9))
