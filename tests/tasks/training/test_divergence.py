"""A training that diverges ends at once, says why, and keeps its last good checkpoint."""

from __future__ import annotations

import math
import re

import pytest
import torch

from model.objective import Loss
from tasks.runs.errors import RunError
from tasks.runs.run import steps_of
from tasks.runs.spool import read_rows
from tasks.training.errors import DivergedError
from tasks.training.group import train
from tasks.training.health import all_finite, check_step, check_validation, check_weights

CPU = torch.device("cpu")


@pytest.fixture
def alone(tmp_path):
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def loss_of(*values: float) -> Loss:
    per_pair = torch.tensor(values)
    return Loss(per_pair.mean(), per_pair, torch.tensor([700, 30][: len(values)]))


def test_finite_losses_and_gradients_pass_with_their_sums(alone):
    squares = torch.tensor([9.0, 1e40], dtype=torch.float64)  # a large norm is no overflow
    assert torch.equal(check_step(3, 1e-3, [loss_of(1.0), loss_of(2.0)], squares), squares)


@pytest.mark.parametrize(
    ("losses", "squares", "said"),
    [
        ((math.nan, 1.0), (1.0, 4.0), "its loss is not finite (loss nan, gradient norm 2.23607"),
        ((math.inf, 1.0), (1.0, math.nan), "its loss is not finite (loss inf, gradient norm nan"),
        ((1.0, 3.0), (math.inf, 0.0), "its gradient norm is not finite (loss 2, gradient norm inf"),
    ],
)
def test_the_first_that_is_not_finite_is_told_with_step_rate_and_timesteps(alone, losses, squares, said):
    with pytest.raises(DivergedError) as found:
        check_step(7, 1e6, [loss_of(*losses)], torch.tensor(squares, dtype=torch.float64))
    message = str(found.value)
    assert message.startswith("The training diverged in step 7: ")
    assert said in message
    assert "learning rate 1e+06, timesteps 30, 700)" in message
    assert "lower learning_rate" in message
    assert (found.value.step, found.value.learning_rate) == (7, 1e6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_overflowed_in_the_update_are_seen(alone, value, dtype):
    good = [torch.zeros(0), torch.full((4,), 3e38), torch.ones(3, dtype=torch.bfloat16), torch.tensor(5)]
    check_weights(2, 1.0, [tensor for tensor in good if tensor.is_floating_point()], CPU)
    bad = torch.ones(5, dtype=dtype)
    bad[3] = value
    assert not all_finite([*good[:3], bad], CPU)
    with pytest.raises(DivergedError, match="in step 2: its weights or optimizer state are not finite after the upd"):
        check_weights(2, 1.0, [*good[:3], bad], CPU)


def test_a_validation_loss_that_is_not_finite_is_the_end():
    check_validation(4, 1.0, 0.5)
    with pytest.raises(DivergedError, match="in step 4: its validation loss is nan"):
        check_validation(4, 1.0, math.nan)


def diverge(run, latents) -> str:
    """Train a run that diverges; check what it leaves, and return what it says."""
    rows: list = []
    with pytest.raises(RunError, match=r"^The training diverged in step \d") as found:
        train(run, latents, 2, on_rows=rows.extend)
    said, kept = str(found.value), read_rows(run.spool)
    step = int(re.search(r"in step (\d+)", said)[1])
    assert [row["step"] for row in kept] == list(range(1, step + 1))
    assert kept[-1]["failure"] == rows[-1]["failure"] == said
    assert all(math.isfinite(value) for row in kept for value in row.values() if not isinstance(value, str))
    steps = [steps_of(checkpoint) for checkpoint in run.checkpoints()]
    assert steps
    assert max(steps) < step
    return said


RUINOUS = {"learning_rate": 1e6, "train_steps": 8, "checkpoint_every": 1}


@pytest.mark.slow
def test_two_ranks_stop_together_and_keep_the_last_good_checkpoint(new_run):
    """Preset tiny at a learning rate of 1e6 used to be a success, with weights that are no numbers."""
    run, latents = new_run("diverges", **RUINOUS)
    assert "1e+06" in diverge(run, latents)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bf16"}, {"zero_stage": 1}, {"zero_stage": 3, "ema_decay": 0.0}, {"log_every": 3}],
    ids=str,
)
def test_it_meets_the_same_end_again(new_run, changes):
    run, latents = new_run("diverges-again", **RUINOUS | changes)
    if "log_every" in changes:
        with pytest.raises(RunError, match="diverged") as found:
            train(run, latents, 2)
        rows = read_rows(run.spool)
        assert rows[-1]["failure"] == str(found.value)
        assert rows[-2]["step"] == rows[-1]["step"] - 1  # the steps since the last row, before the bad one
    else:
        assert diverge(run, latents) == diverge(run, latents)
