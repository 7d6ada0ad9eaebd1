"""Training the arms of a setting, as many at a time as the machine holds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue

import torch

from infra.storage import OnProgress, no_progress
from tasks.benchmark.arms import Arm
from tasks.runs.run import Run, create_run, steps_of
from tasks.training.group import OnRows, train

REPORT_S = 2.0


def open_arms(arms: Sequence[Arm]) -> list[Run]:
    """Return the arms' trainings on the setting's data set, known or new. ShardError without a finished data set."""
    return [create_run(arm.setting.dataset, arm.preset, "", mark_last=False) for arm in arms]


def processes_of(run: Run) -> int:
    """Return the number of processes of a training: as many GPUs as divide its micro-batches, one without GPUs."""
    training = run.preset.training
    return math.gcd(max(torch.cuda.device_count(), 1), training.batch_size // training.micro_batch_size)


def places(processes: int, side_by_side: int | None = None) -> list[int | None]:
    """Return where arms train side by side: the GPU of each, None for all GPUs or CPUs.

    `side_by_side` is how many; None: one a GPU, or one for all where each has several processes; without GPUs one a
    core, as small models gain little from a second.
    """
    gpus = torch.cuda.device_count()
    if gpus and processes == 1:
        return [number % gpus for number in range(side_by_side or gpus)]
    return [None] * (side_by_side or (1 if gpus else len(os.sched_getaffinity(0))))


def is_trained(run: Run) -> bool:
    """Tell whether a run has its last step."""
    last = run.latest_checkpoint()
    return last is not None and steps_of(last) >= run.preset.training.train_steps


def train_arms(
    runs: Sequence[Run],
    latents_dir: Path,
    rows_of: Callable[[Run], OnRows],
    on_progress: OnProgress = no_progress,
    side_by_side: int | None = None,
) -> int:
    """Train what is not trained yet, each from its last checkpoint; return how many were.

    `side_by_side` at a time, None: see `places`. RunError of the first that fails; the others end first.
    """
    todo = [run for run in runs if not is_trained(run)]
    steps = {run.run_id: 0 for run in todo}
    total = sum(run.preset.training.train_steps for run in todo)
    processes = max(map(processes_of, todo), default=1)
    free: SimpleQueue[int | None] = SimpleQueue()
    for place in places(processes, side_by_side)[: len(todo)]:
        free.put(place)
    together = free.qsize()

    def one(run: Run) -> None:
        def told(done: int, _: int, note: str) -> None:
            steps[run.run_id] = done

        threads, gpu = max(1, len(os.sched_getaffinity(0)) // together), free.get()
        try:
            train(run, latents_dir, processes, told, rows_of(run), threads=threads, gpu=gpu)
        finally:
            free.put(gpu)

    if todo:
        with ThreadPoolExecutor(together) as pool:
            outcomes = [pool.submit(one, run) for run in todo]
            while wait(outcomes, timeout=REPORT_S).not_done:  # progress is told on the caller's thread
                on_progress(sum(steps.values()), total, f"{len(todo)} arms, {together} at a time")
        for outcome in outcomes:
            outcome.result()
        on_progress(total, total, "")
    return len(todo)
