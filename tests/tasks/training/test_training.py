"""The process group as users start it: checkpoints, exact resumption, deaths (traps 27 to 30)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from infra.deepspeed_config import DeepSpeedConfigError
from model.transformer import ShareVerseTransformer3DModel
from tasks.runs.errors import RunError
from tasks.runs.run import steps_of
from tasks.runs.spool import read_rows
from tasks.training.group import train

FOUR = {"batch_size": 4, "micro_batch_size": 1, "train_steps": 4, "checkpoint_every": 2, "validate_every": 2}
"""Two forward passes a step on each of two processes."""


@pytest.fixture(scope="module")
def trained(state):
    """Four steps by two processes: the run, what was reported, and a copy of its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAREVERSE_HOME", str(state[0]))
        from tasks.runs.run import create_run
        from tests.tasks.training.conftest import TINY

        run, said, rows = create_run("synthetic", TINY.replace(**FOUR)), [], []
        train(run, state[1], 2, lambda *call: said.append(call), rows.extend)
        undisturbed = state[0] / "undisturbed"
        shutil.copytree(run.folder, undisturbed)
        return run, said, rows, undisturbed


def losses(rows):
    return {row["step"]: {n: v for n, v in row.items() if "loss" in n or "grad_norm" in n} for row in rows}


def weights(folder, step):
    return load_file(folder / f"checkpoints/step-{step:06d}/model/diffusion_pytorch_model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_steps_rows_and_progress_arrive(trained):
    _, said, rows, folder = trained
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows == read_rows(folder / "metrics.jsonl")
    assert said[0] == (0, 4, "starting")
    assert said[-1][:2] == (4, 4)
    names = ("loss", "grad_norm", "learning_rate", "pairs_per_s", "step_s", "tflops", "memory_gb")
    assert {f"train/{name}" for name in names} <= rows[0].keys()
    assert "train/mfu" not in rows[0]  # no data sheet gives a CPU's peak
    parts = [rows[0][f"train/grad_norm_{name}"] for name in ("base", "raymap", "cross")]
    assert rows[0]["train/grad_norm"] == pytest.approx(sum(part**2 for part in parts) ** 0.5, rel=1e-5)
    assert min(row["train/grad_norm_base"] for row in rows) > 0.1
    assert min(row["train/grad_norm_cross"] for row in rows) > 0.01
    assert ["val/loss" in row for row in rows] == [False, True, False, True]
    assert all((folder / row["sample"]).exists() for row in rows if "sample" in row)


def test_a_checkpoint_is_a_diffusers_model_and_says_what_it_is(trained):
    run, _, _, folder = trained
    checkpoint = folder / "checkpoints/step-000004"
    record = json.loads((checkpoint / "trainer.json").read_text())
    assert (record["run_id"], record["step"], record["samples_consumed"]) == (run.run_id, 4, 16)
    model = ShareVerseTransformer3DModel.from_pretrained(checkpoint / "model")
    assert equal(dict(model.state_dict()), weights(folder, 4))
    average = load_file(checkpoint / "ema.safetensors")
    assert all(torch.equal(weights(folder, 4)[name], value) for name, value in average.items())
    assert weights(folder, 4)["raymap_encoders.0.proj.weight"].abs().max() > 0


def test_two_steps_resumed_for_two_more_equal_four(trained, state, new_run):
    run, _, rows, undisturbed = trained
    new_run(**FOUR)  # points SHAREVERSE_HOME to the state
    shutil.rmtree(run.folder / "checkpoints/step-000004")
    (run.folder / "checkpoints/.tmp-step-000004").mkdir()  # as a kill leaves it
    with open(run.spool, "a") as spool:
        spool.write('{"step": 5, "time_s"')
    said, again = [], []
    train(run, state[1], 2, lambda *call: said.append(call), again.extend)
    assert said[0] == (2, 4, "resumes from step 2")
    assert losses(again) == losses(rows)
    assert losses(read_rows(run.spool)) == losses(rows)
    assert equal(weights(run.folder, 4), weights(undisturbed, 4))
    assert not list(run.folder.glob("checkpoints/.tmp-*"))


def test_a_trained_run_is_left_alone(trained, state, new_run):
    run, *_ = trained
    new_run(**FOUR)
    before = time.monotonic()
    assert steps_of(train(run, state[1], 2)) == 4
    assert time.monotonic() - before < 1


def test_another_number_of_processes_cannot_resume(trained, state, new_run):
    run, *_ = trained
    new_run(**FOUR)
    last = run.folder / "checkpoints/step-000004"
    last.rename(run.folder / "aside")
    try:
        with pytest.raises(RunError, match=r"by 2 processes and cannot be resumed by 1 .*processes=2, or give a run_"):
            train(run, state[1], 1)
    finally:
        (run.folder / "aside").rename(last)


def test_a_batch_that_does_not_divide_starts_nothing(new_run):
    run, latents = new_run("odd", batch_size=4)
    with pytest.raises(DeepSpeedConfigError, match="batch_size 4 is no multiple"):
        train(run, latents, 3)
    assert not (run.folder / "logs").exists()


def test_zero_3_and_an_average_are_refused(new_run):
    run, latents = new_run("three", zero_stage=3)
    with pytest.raises(RunError, match=r"ema_decay is 0.9 and zero_stage 3: .*set ema_decay to 0"):
        train(run, latents, 2)


def test_a_process_that_fails_ends_the_group_with_its_last_words(new_run, tmp_path):
    run, _ = new_run("no-latents")
    with pytest.raises(RunError, match=r"codec holds no fitted linear codec: encode the data set first\.$"):
        train(run, tmp_path, 2)
    assert not [p for p in psutil.Process().children(recursive=True) if "tasks.training.worker" in p.cmdline()]


def ranks_of(folder):
    """Return the processes that train in `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "tasks.training.worker" in command and str(folder) in command and "-S" not in command:  # no supervisor
            found.append(process)
    return found


def until(condition, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_ranks_and_parents_change_nothing(new_run):
    changes = FOUR | {"train_steps": 40, "seed": 3, "checkpoint_every": 5}
    calm, latents = new_run("calm", **changes)
    train(calm, latents, 2)
    run, _ = new_run("killed", **changes)

    def kill_rank(done, total, note):
        if done >= 7:
            for rank in ranks_of(run.folder)[1:]:  # none at the last call, which tells how far it came
                rank.send_signal(signal.SIGKILL)

    with pytest.raises(RunError, match=r"was ended by SIGKILL"):
        train(run, latents, 2, kill_rank)
    assert not ranks_of(run.folder)
    assert steps_of(run.latest_checkpoint()) >= 5

    script = (
        "from pathlib import Path; from tasks.runs.run import read_run; from tasks.training.group import train;"
        f"train(read_run({run.run_id!r}), Path({str(latents)!r}), 2)"
    )
    before = steps_of(run.latest_checkpoint())
    parent = subprocess.Popen([sys.executable, "-c", script], env=os.environ.copy())
    until(lambda: steps_of(run.latest_checkpoint()) > before or parent.poll() is not None)
    parent.kill()
    parent.wait()
    until(lambda: not ranks_of(run.folder), 20)
    train(run, latents, 2)
    assert equal(weights(run.folder, 40), weights(calm.folder, 40))
    assert losses(read_rows(run.spool)) == losses(read_rows(calm.spool))


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "changes"), [(1, {}), (2, {"zero_stage": 1}), (2, {"zero_stage": 3})])
def test_the_batch_does_not_depend_on_how_it_is_shared(new_run, processes, changes):
    """Other sums in another order: equal up to rounding."""
    common = FOUR | {"ema_decay": 0.0}
    reference, latents = new_run("reference", **common)
    train(reference, latents, 2)
    run, _ = new_run(f"shared-{processes}", **common | changes)
    train(run, latents, processes)
    expected = losses(read_rows(reference.spool))
    for step, row in losses(read_rows(run.spool)).items():
        assert row == pytest.approx(expected[step], rel=2e-4)


@pytest.mark.slow
def test_bf16_trains(new_run):
    run, latents = new_run("bf16", **FOUR | {"precision": "bf16"})
    train(run, latents, 2)
    plain, _ = new_run("fp32", **FOUR)
    train(plain, latents, 2)
    found, expected = losses(read_rows(run.spool)), losses(read_rows(plain.spool))
    assert found[4]["train/loss"] == pytest.approx(expected[4]["train/loss"], rel=0.03)
    assert found[4]["train/loss"] != expected[4]["train/loss"]
