"""Training the arms of a setting, as many at a time as the machine holds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import torch

from infra.storage import OnProgress, no_progress
from tasks.benchmark.arms import Arm
from tasks.training.group import OnRows, train
from tasks.training.run import Run, create_run, steps_of

REPORT_S = 2.0


def open_arms(arms: Sequence[Arm]) -> list[Run]:
    """Return the arms' trainings on the setting's data set, known or new. ShardError without a finished data set."""
    return [create_run(arm.setting.dataset, arm.preset, "", mark_last=False) for arm in arms]


def at_a_time() -> int:
    """Return how many arms train side by side: one a core (small models gain little from a second), one on GPUs."""
    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


def is_trained(run: Run) -> bool:
    """Tell whether a run has its last step."""
    last = run.latest_checkpoint()
    return last is not None and steps_of(last) >= run.preset.training.train_steps


def train_arms(
    runs: Sequence[Run],
    latents_dir: Path,
    rows_of: Callable[[Run], OnRows],
    on_progress: OnProgress = no_progress,
) -> int:
    """Train what is not trained yet, each from its last checkpoint; return how many were. TrainingError of the first
    that fails; the others end first."""
    todo = [run for run in runs if not is_trained(run)]
    steps = {run.run_id: 0 for run in todo}
    total = sum(run.preset.training.train_steps for run in todo)
    together = min(at_a_time(), len(todo))

    def one(run: Run) -> None:
        def told(done: int, _: int, note: str) -> None:
            steps[run.run_id] = done

        training = run.preset.training
        shares = training.batch_size // training.micro_batch_size
        processes = math.gcd(torch.cuda.device_count(), shares) if torch.cuda.is_available() else 1
        threads = max(1, len(os.sched_getaffinity(0)) // together)
        train(run, latents_dir, processes, told, rows_of(run), threads=threads)

    if todo:
        with ThreadPoolExecutor(together) as pool:
            outcomes = [pool.submit(one, run) for run in todo]
            while wait(outcomes, timeout=REPORT_S).not_done:  # progress is told on the caller's thread
                on_progress(sum(steps.values()), total, f"{len(todo)} arms, {together} at a time")
        for outcome in outcomes:
            outcome.result()
        on_progress(total, total, "")
    return len(todo)
