"""Records a plan on a Ray pool with one actor per CARLA server, for as long as at least one server works.

A failure is charged to what caused it. A server that does not start is launched again after a growing wait. A server
that fails while it records is replaced, and its recording is tried again without counting an attempt. A recording that
fails on a working server is given up after three attempts. A full disk ends the run, and so does its deadline. The
ledger notes why each server ended.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from infra.actor_pool import (
    ActorPool,
    ActorsFail,
    FatalFault,
    ItemTimeout,
    Limits,
    NoActor,
    Outcome,
    PoolError,
    Recycling,
)
from infra.carla_servers import SimulatorSpec
from infra.ray_cluster import ray_cluster
from infra.storage import OnProgress, StorageError, disk_fault, no_progress, require_free_space
from tasks.planning.rows import PlannedRecording, read_plan
from tasks.planning.spares import read_spares
from tasks.recording.actor import RecorderActor
from tasks.recording.errors import RecordingError
from tasks.recording.ledger import Ledger
from tasks.recording.metrics import RecordingMetrics
from tasks.recording.placement import recorder_needs
from tasks.recording.progress import Progress
from tasks.recording.recorder import WARM_UP_TICKS
from tasks.recording.watch import RunWatch
from tasks.recording.work import RecordingQueue, RecordingSummary

__all__ = ["RecordingSummary", "Servers", "record_plan"]

LOG = logging.getLogger(__name__)
Servers = int | Literal["fit"]
"""How many CARLA servers in total; "fit": as many as Ray's nodes hold, also those that join later."""
RECYCLING = Recycling(items=50, age_s=3 * 3600, memory_bytes=24 * 2**30, gpu_memory_bytes=16 * 2**30)
"""When a CARLA server is replaced, because it leaks (trap 9: servers leak memory): after so many recordings, so long,
or with two to three times the memory that its largest towns take. The embedded server does not leak."""
BYTES_PER_PIXEL = 0.35
"""Of a stored clip, with a margin (measured: docs/LOG.md)."""
MAX_ATTEMPTS = 3
"""Attempts at a recording in one run."""
MAX_SERVERS_LOST = 8
"""After so many servers have failed during one recording, the recording is to blame."""
STAGGER_S = 4.0
"""Between the first launches of CARLA's servers, which fail when they all load at once."""
START_MARGIN_S = 60.0
"""How much later than the launcher's own deadline an actor may answer."""
SETUP_TIMEOUT_S, UNKNOWN_TICK_S = 300.0, 10.0
"""Timeout of loading a recording's town, and of each of its ticks while no rate is known."""


class RecordingTimeout(ItemTimeout):
    """How long a recording may take: by its ticks and the slowest rate measured so far, unless a limit was given."""

    def __init__(self, limit_s: float | None = None) -> None:
        super().__init__(
            lambda row: row.ticks + WARM_UP_TICKS,
            setup_s=SETUP_TIMEOUT_S,
            unknown_rate_s=UNKNOWN_TICK_S,
            limit_s=limit_s,
        )


def record_plan(
    dataset_dir: Path,
    spec: SimulatorSpec,
    *,
    servers: Servers = 2,
    on_progress: OnProgress = no_progress,
    log: logging.Logger | logging.LoggerAdapter = LOG,
    recycling: Recycling | None = None,
    recording_limit_s: float | None = None,
    run_limit_s: float | None = None,
    retry_quarantined: bool = False,
    show: Callable[[Progress], None] | None = None,
) -> RecordingSummary:
    """Record what is in the plan and not yet in the ledger, on `servers` parallel CARLA servers.

    A recording that fails a quality gate is settled, one that fails in three runs is quarantined, and spare recordings
    replace both. What else fails is left to the next run.

    recycling: when a server that works is replaced; by default RECYCLING for the real CARLA. recording_limit_s: time
    after which a recording's server is replaced; by default estimated from its ticks. run_limit_s: time after which
    the run ends and leaves the rest to the next one. retry_quarantined: try quarantined recordings again. show: is
    called every few seconds with how far the run is.

    RecordingError when no server can be started, or no recording finishes; StorageError when the disk is full or cannot
    be written. Finished recordings are kept, and the next run resumes from them.
    """
    plan, spares = read_plan(dataset_dir / "plan.parquet"), read_spares(dataset_dir)
    ledger = Ledger(dataset_dir, log)
    try:
        if retry_quarantined:
            ledger.release_quarantined()
        queue = RecordingQueue(dataset_dir, plan, spares, ledger, log)
        total = queue.already_done + len(queue.remaining)
        on_progress(queue.already_done, total, f"{queue.already_done} done before" if queue.already_done else "")
        if queue.remaining:
            pixels = sum(
                2 * len(row.windows) * row.frames * row.view_width * row.view_height for row in queue.remaining
            )
            require_free_space(dataset_dir, int(pixels * BYTES_PER_PIXEL))
            if servers != "fit":
                servers = min(servers, len(queue.remaining))
            limits = recording_limits(spec, recycling, run_limit_s)
            timeout = RecordingTimeout(recording_limit_s)
            with ray_cluster(num_cpus=None if servers == "fit" else servers) as ray:
                metrics = RecordingMetrics(dataset_dir.name)
                shown = [metrics.show, *([show] if show else [])]
                watch = RunWatch(dataset_dir, queue, shown, [metrics.count_end])
                record_remaining(ray, spec, dataset_dir, queue, servers, limits, timeout, on_progress, log, watch)
        return queue.summary()
    except OSError as error:
        path = Path(str(error.filename or dataset_dir))
        raise disk_fault(error, path) or RecordingError(
            f"{path} cannot be used ({error.strerror}): move it away, then run again."
        ) from error
    finally:
        ledger.close()


def recording_limits(spec: SimulatorSpec, recycling: Recycling | None, run_limit_s: float | None = None) -> Limits:
    return Limits(
        start_s=spec.ready_s + START_MARGIN_S,
        attempts=MAX_ATTEMPTS,
        actors_lost=MAX_SERVERS_LOST,
        recycling=recycling or (RECYCLING if spec.kind == "carla" else Recycling()),
        run_s=run_limit_s or math.inf,
        stagger_s=STAGGER_S if spec.kind == "carla" else 0.0,
        died="{name} or its recorder died (see logs/{name}.log).",
    )


def record_remaining(
    ray: Any,
    spec: SimulatorSpec,
    dataset_dir: Path,
    queue: RecordingQueue,
    servers: Servers,
    limits: Limits,
    timeout: RecordingTimeout,
    on_progress: OnProgress,
    log: logging.Logger | logging.LoggerAdapter,
    watch: RunWatch,
) -> None:
    """Keep every server busy until no recording remains or the run's deadline, and enter what becomes of each."""

    def create_actor(options: dict[str, Any], name: str) -> Any:
        return ray.remote(**options)(RecorderActor).remote(spec, str(dataset_dir), name)

    needs = recorder_needs(ray, spec, servers)
    pool = ActorPool[PlannedRecording](ray, "server", create_actor, servers, needs, limits, timeout, log, watch)
    try:
        with pool:
            try:
                for outcome in pool.outcomes(queue):
                    enter_outcome(queue, outcome)
                    made = queue.already_done + queue.recorded
                    left = len(queue.remaining) + pool.working
                    on_progress(made, made + left, f"{outcome.item.town}, {outcome.item.trajectory_type}")
                if queue.remaining:
                    queue.leave_to_next_run(limits.run_s)
            except PoolError as error:
                queue.note_end("run failed", str(error))
                watch.tell(pool.states(), over=True)
                raise
            watch.tell(pool.states(), over=True)
    except NoActor as error:
        raise RecordingError(f"no server can be started: {error}") from error
    except ActorsFail as error:
        raise RecordingError(
            f"the servers fail while they record, {error.items} recordings in a row, the last: {error}"
        ) from error
    except FatalFault as error:
        raise StorageError(str(error)) from error


def enter_outcome(queue: RecordingQueue, outcome: Outcome[PlannedRecording]) -> None:
    """Enter what became of a recording in the queue's books."""
    if outcome.kind == "failed":
        queue.give_up(outcome.item, outcome.value)
    elif outcome.kind == "done" and outcome.value:
        queue.rejected(outcome.item, outcome.value)
    elif outcome.kind == "done":
        queue.done(outcome.item)
