"""Training the arms of a setting, as many at a time as the GPUs or cores of Ray's nodes hold."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from infra.actor_pool import (
    ActorPool,
    Answer,
    ItemQueue,
    ItemTimeout,
    Limits,
    Needs,
    PoolActor,
    PoolError,
    assigned_cores,
    await_nodes,
)
from infra.deepspeed_config import DeepSpeedConfigError
from infra.ray_cluster import ray_cluster
from infra.storage import OnProgress, StorageError, no_progress
from tasks.benchmark.arms import Arm
from tasks.runs.errors import RunError
from tasks.runs.run import Run, create_run, steps_of
from tasks.training.group import OnRows, train

LOG = logging.getLogger(__name__)
LIMITS = Limits(start_s=300.0, attempts=1, actors_lost=3, report_s=2.0, died="the process of {name} died.")
"""What fails in a trainer that lives would fail again; when one dies, another goes on from the last checkpoint."""
SILENCE_S = 7200.0
"""A training that reports nothing for so long hangs."""
Report = int | list[dict[str, Any]]
"""Steps done, or rows of metrics."""


def open_arms(arms: Sequence[Arm]) -> list[Run]:
    """Return the arms' trainings on the setting's data set, known or new. ShardError without a finished data set."""
    return [create_run(arm.setting.dataset, arm.preset, "", mark_last=False) for arm in arms]


def processes_of(run: Run) -> int:
    """Return the number of processes of a training: as many GPUs as divide its micro-batches, one without GPUs."""
    training = run.preset.training
    return math.gcd(max(torch.cuda.device_count(), 1), training.batch_size // training.micro_batch_size)


def is_trained(run: Run) -> bool:
    """Tell whether a run has its last step."""
    last = run.latest_checkpoint()
    return last is not None and steps_of(last) >= run.preset.training.train_steps


class ArmTrainer(PoolActor):
    """Trains an arm with its processes on one node; they end with it."""

    def __init__(self, latents_dir: str, processes: int) -> None:
        self.latents_dir, self.processes = Path(latents_dir), processes
        self.told: SimpleQueue[Report] = SimpleQueue()

    def work(self, run: Run) -> Answer:
        """Train from the last checkpoint to the last step."""

        def on_progress(done: int, total: int, note: str) -> None:
            self.told.put(done)

        try:
            train(run, self.latents_dir, self.processes, on_progress, self.told.put, threads=assigned_cores())
        except (RunError, DeepSpeedConfigError, StorageError) as error:
            return "fault", str(error)
        return "done", ""

    def reports(self) -> list[Report]:
        """Return the steps done and the rows of metrics since the last call."""
        return [self.told.get() for _ in range(self.told.qsize())]


def arm_needs(nodes: Sequence[dict[str, float]], processes: int, side_by_side: int | None) -> Needs:
    """Return what each of `side_by_side` arms needs of Ray's nodes: a GPU per process where that is enough for all;
    else arms of one process share GPUs, and those of several see all of them; without GPUs a CPU."""
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    arms_per_gpu = math.ceil((side_by_side or 1) * processes / gpus) if gpus else 0
    if arms_per_gpu > 1:
        return Needs(gpus=1 / arms_per_gpu if processes == 1 else 0)
    return Needs(gpus=processes if gpus else 0)


def train_arms(
    runs: Sequence[Run],
    latents_dir: Path,
    rows_of: Callable[[Run], OnRows],
    on_progress: OnProgress = no_progress,
    side_by_side: int | None = None,
) -> int:
    """Train what is not trained yet, each from its last checkpoint; return how many were.

    `side_by_side` at a time; None: one per GPU, or one per group of GPUs where each has several processes; without GPUs
    one per core, as small models gain little from a second. RunError of the first that fails; the others end first.
    """
    todo = [run for run in runs if not is_trained(run)]
    if not todo:
        return 0
    cpus_here = min(side_by_side or len(os.sched_getaffinity(0)), len(todo))
    with ray_cluster(num_cpus=cpus_here) as ray:
        failed = train_on(ray, todo, latents_dir, rows_of, on_progress, side_by_side, cpus_here)
    if failed:
        raise RunError(failed[0])
    return len(todo)


def train_on(
    ray: Any,
    todo: Sequence[Run],
    latents_dir: Path,
    rows_of: Callable[[Run], OnRows],
    on_progress: OnProgress,
    side_by_side: int | None,
    cpus: int,
) -> list[str]:
    """Train on Ray's nodes; return why trainings failed."""
    processes = max(map(processes_of, todo))
    steps = {run.run_id: 0 for run in todo}
    total = sum(run.preset.training.train_steps for run in todo)
    timeout = ItemTimeout(lambda run: 1, setup_s=0.0, unknown_rate_s=SILENCE_S, limit_s=SILENCE_S)
    needs = arm_needs(await_nodes(ray, cpus), processes, side_by_side)
    failed = []

    def create_actor(options: dict[str, Any], name: str) -> Any:
        return ray.remote(**options)(ArmTrainer).remote(str(latents_dir), processes)

    with ActorPool[Run](ray, "trainer", create_actor, side_by_side or "fit", needs, LIMITS, timeout, LOG) as pool:
        try:
            for outcome in pool.outcomes(ItemQueue(todo, key=lambda run: run.run_id)):
                run, report = outcome.item, outcome.value
                if outcome.kind == "failed":
                    failed.append(report)
                elif outcome.kind == "report" and isinstance(report, list):
                    rows_of(run)(report)
                elif outcome.kind == "report":
                    steps[run.run_id] = report
                    on_progress(sum(steps.values()), total, f"{len(todo)} arms, {pool.working} at a time")
        except PoolError as error:
            raise RunError(f"no arm can be trained: {error}") from error
    if not failed:
        on_progress(total, total, "")
    return failed
