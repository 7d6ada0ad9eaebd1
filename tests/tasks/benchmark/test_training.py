"""Arms train side by side, each in its place."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from model.presets import Preset
from tasks.benchmark import training
from tasks.benchmark.training import places, processes_of, train_arms
from tasks.runs.errors import RunError
from tasks.runs.run import Run
from tasks.training.group import ProcessGroup

BENCH, SINGLE_GPU = Preset.load("bench"), Preset.load("single-gpu")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))


@pytest.fixture
def have_gpus(monkeypatch):
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def run_of(preset: Preset, seed: int = 0, **changes: int) -> Run:
    return Run("toy", "0" * 64, preset.replace(seed=seed, **changes))


@pytest.mark.parametrize(
    ("gpus", "processes", "asked", "wanted"),
    [
        (0, 1, None, [None] * len(os.sched_getaffinity(0))),
        (0, 1, 3, [None] * 3),
        (1, 1, None, [0]),
        (1, 1, 3, [0, 0, 0]),
        (2, 1, None, [0, 1]),
        (2, 1, 3, [0, 1, 0]),
        (8, 8, None, [None]),
    ],
)
def test_arms_of_one_process_get_a_gpu_each(have_gpus, gpus, processes, asked, wanted):
    have_gpus(gpus)
    assert places(processes, asked) == wanted


@pytest.mark.parametrize(
    ("gpus", "shares", "wanted"), [(0, 4, 1), (1, 4, 1), (4, 4, 4), (8, 4, 4), (3, 4, 1), (8, 1, 1)]
)
def test_processes_are_as_many_gpus_as_divide_the_micro_batches(have_gpus, gpus, shares, wanted):
    have_gpus(gpus)
    assert processes_of(run_of(SINGLE_GPU, micro_batch_size=SINGLE_GPU.training.batch_size // shares)) == wanted


def test_as_many_as_asked_for_train_side_by_side(have_gpus, monkeypatch, tmp_path):
    have_gpus(2)
    together, busy, most = threading.Barrier(4, timeout=30), dict.fromkeys(range(2), 0), []
    lock = threading.Lock()

    def train(run, latents_dir, processes, on_progress, on_rows, *, threads, gpu):
        with lock:
            busy[gpu] += 1
            most.append(busy[gpu])
        together.wait()  # passes where four are here at a time, and no fewer
        with lock:
            busy[gpu] -= 1

    monkeypatch.setattr(training, "train", train)
    runs = [run_of(BENCH, seed) for seed in range(8)]
    assert train_arms(runs, tmp_path, lambda run: lambda rows: None, side_by_side=4) == 8
    assert max(most) == 2  # on each of two GPUs


def test_a_training_that_fails_frees_its_place(have_gpus, monkeypatch, tmp_path):
    have_gpus(1)
    tried = []

    def train(run, *given, gpu, **named):
        tried.append(gpu)
        if len(tried) == 1:
            raise RunError("out of memory.")

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(RunError, match="out of memory"):
        train_arms([run_of(BENCH, seed) for seed in range(3)], tmp_path, lambda run: lambda rows: None)
    assert tried == [0, 0, 0]


@pytest.mark.parametrize(
    ("seen", "gpu", "wanted"), [(None, 1, "1"), ("4,6", 1, "6"), ("4,6", None, "4,6"), (None, None, None)]
)
def test_a_training_sees_its_gpu_alone(monkeypatch, tmp_path, seen, gpu, wanted):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    environment = ProcessGroup(run_of(BENCH), tmp_path, 1, gpu=gpu).environment(0)
    assert environment.get("CUDA_VISIBLE_DEVICES") == wanted
    assert environment["LOCAL_RANK"] == "0"
