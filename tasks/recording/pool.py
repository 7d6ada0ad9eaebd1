"""Records a plan on a Ray pool with one actor per CARLA server, for as long as at least one server works.

A failure is charged to what caused it. A server that does not start is launched again after a growing wait. A server
that fails while it records is replaced, and its recording is tried again without counting an attempt. A recording that
fails on a working server is given up after three attempts. A full disk ends the run.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from infra.carla_servers import SimulatorSpec
from infra.ray_cluster import ray_cluster
from infra.storage import OnProgress, StorageError, disk_fault, no_progress, require_free_space
from tasks.planning.rows import read_plan
from tasks.planning.spares import read_spares
from tasks.recording.actor import RecorderActor
from tasks.recording.errors import RecordingError
from tasks.recording.ledger import Ledger
from tasks.recording.slot import STAGGER_S, STOP_TIMEOUT_S, Phase, RecordingOutcome, RecordingTimeout, Slot
from tasks.recording.work import RecordingQueue, RecordingSummary

__all__ = ["RecordingSummary", "record_plan"]

LOG = logging.getLogger(__name__)
RECYCLE_EVERY = 50
"""Recordings after which a CARLA server is replaced, because it leaks (trap 9: servers leak memory). The embedded
server does not."""
BYTES_PER_PIXEL = 0.35
"""Of a stored clip, with a margin (measured: docs/LOG.md)."""
MAX_LOST_PER_SLOT = 3
"""If so many recordings in a row, per slot, lost their server, the servers cannot record."""
MAX_WAIT_S = 10.0
"""Longest wait for an answer before the pool looks at its slots again."""
RAY_CPU_WAIT_S = 10.0
"""How long a Ray that has just started may take to report its CPUs."""


def record_plan(
    dataset_dir: Path,
    spec: SimulatorSpec,
    *,
    servers: int = 2,
    on_progress: OnProgress = no_progress,
    log: logging.Logger | logging.LoggerAdapter = LOG,
    recycle_every: int | None = None,
    recording_limit_s: float | None = None,
    retry_quarantined: bool = False,
) -> RecordingSummary:
    """Record what is in the plan and not yet in the ledger, on `servers` parallel CARLA servers.

    A recording that fails a quality gate is settled, one that fails in three runs is quarantined, and spare recordings
    replace both. What else fails is left to the next run.

    recycle_every: recordings after which a server is replaced; by default 50 for the real CARLA. recording_limit_s:
    time after which a recording's server is replaced; by default estimated from its ticks. retry_quarantined: try
    quarantined recordings again.

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
            servers = min(servers, len(queue.remaining))
            recycle_after = recycle_every or (RECYCLE_EVERY if spec.kind == "carla" else math.inf)
            with ray_cluster(num_cpus=servers) as ray:
                slots = open_slots(ray, shared_threads(spec, servers), dataset_dir, servers, log)
                Pool(ray, slots, queue, recycle_after, RecordingTimeout(recording_limit_s), on_progress).run()
        return queue.summary()
    except OSError as error:
        path = Path(str(error.filename or dataset_dir))
        raise disk_fault(error, path) or RecordingError(
            f"{path} cannot be used ({error.strerror}): move it away, then run again."
        ) from error
    finally:
        ledger.close()


def shared_threads(spec: SimulatorSpec, servers: int) -> SimulatorSpec:
    """Return the spec with the machine's cores shared among the embedded servers."""
    if spec.kind != "embedded" or "--threads" in spec.options:
        return spec
    threads = max(1, (os.cpu_count() or 1) // servers)
    return replace(spec, options=(*spec.options, "--threads", str(threads)))


def open_slots(ray: Any, spec: SimulatorSpec, dataset_dir: Path, servers: int, log: Any) -> list[Slot]:
    """Return one slot per server, at most one per CPU that Ray has. RecordingError when it has none."""
    cpus = ray_cpus(ray, servers)
    if cpus < servers:
        sentence = f"{servers} servers need {servers} CPU, and Ray has {cpus}"
        if cpus < 1:
            raise RecordingError(f"{sentence}: give Ray CPUs (ray start --num-cpus), or unset RAY_ADDRESS.")
        log.warning(f"{sentence}: recording on {cpus}.")
        servers = cpus
    actor_class = ray.remote(num_cpus=1, max_concurrency=2)(RecorderActor)
    gpus = assign_gpus(spec, servers)
    stagger_s = STAGGER_S if spec.kind == "carla" else 0.0
    return [
        Slot(
            ray, f"server{n}", lambda n=n: actor_class.remote(spec, str(dataset_dir), f"server{n}", gpus[n]),  # type: ignore[misc]
            spec.ready_s, n * stagger_s, log,
        )
        for n in range(servers)
    ]  # fmt: skip


def ray_cpus(ray: Any, wanted: int) -> int:
    """Return how many CPUs Ray has, after waiting a little for `wanted`: a new Ray reports its CPUs with a delay."""
    deadline, never_set = time.monotonic() + RAY_CPU_WAIT_S, threading.Event()
    while True:
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus >= wanted or time.monotonic() >= deadline:
            return cpus
        never_set.wait(0.2)


def assign_gpus(spec: SimulatorSpec, servers: int) -> list[int | None]:
    """Return each server's GPU: this machine's, round-robin; None for the embedded server or without GPUs."""
    if spec.kind != "carla":
        return [None] * servers
    import torch

    count = torch.cuda.device_count()
    return [number % count if count else None for number in range(servers)]


class Pool:
    """The driver's side: hands recordings to slots and enters what becomes of them."""

    def __init__(
        self,
        ray: Any,
        slots: Sequence[Slot],
        queue: RecordingQueue,
        recycle_every: float,
        timeout: RecordingTimeout,
        on_progress: OnProgress,
    ) -> None:
        self.ray, self.slots, self.queue = ray, slots, queue
        self.recycle_every, self.timeout, self.on_progress = recycle_every, timeout, on_progress
        self.lost_with_server: dict[str, str] = {}
        """Recording id -> why its server failed, since the last recording whose server did not."""
        self.never_set = threading.Event()
        """For timed waits."""

    def run(self) -> None:
        """Keep every server busy until no recording remains."""
        try:
            while self.queue.remaining or self.in_phase(Phase.RECORDING):
                self.assign_recordings()
                self.check_servers()
                answered = self.wait()
                now = time.monotonic()
                for slot in self.slots:
                    outcome = None
                    if slot.pending is not None and slot.pending in answered:
                        outcome = slot.take_answer()
                    elif slot.due <= now and (slot.phase is not Phase.WAITING or self.needs_another_server()):
                        outcome = slot.go_on()
                    if outcome is not None:
                        self.handle_outcome(slot, outcome)
        finally:
            self.close()

    def in_phase(self, *phases: Phase) -> list[Slot]:
        return [slot for slot in self.slots if slot.phase in phases]

    def needs_another_server(self) -> bool:
        """Tell whether there are more recordings than servers that are ready, or will be."""
        return len(self.queue.remaining) > len(self.in_phase(Phase.PLACING, Phase.STARTING, Phase.READY))

    def assign_recordings(self) -> None:
        for slot in self.in_phase(Phase.READY):
            if self.queue.remaining:
                row = self.queue.take(slot.town)
                slot.record(row, self.timeout.seconds_for(row))

    def check_servers(self) -> None:
        """Raise RecordingError when no server can be started, or they fail in every recording."""
        if all(slot.hopeless for slot in self.slots):
            reasons = dict.fromkeys(slot.reason for slot in self.slots)
            raise RecordingError(f"no server can be started: {' '.join(reasons)}")
        if len(self.lost_with_server) > MAX_LOST_PER_SLOT * len(self.slots) + MAX_LOST_PER_SLOT:
            lost, reason = len(self.lost_with_server), next(reversed(self.lost_with_server.values()))
            raise RecordingError(f"the servers fail while they record, {lost} recordings in a row, the last: {reason}")

    def wait(self) -> list[Any]:
        """Wait for the first answer, or until a slot is due; return the calls that were answered."""
        pending = [slot.pending for slot in self.slots if slot.pending is not None]
        dues = [slot.due for slot in self.slots if slot.phase is not Phase.WAITING or self.needs_another_server()]
        wait_s = min(max(min(dues, default=math.inf) - time.monotonic(), 0.0), MAX_WAIT_S)
        if pending:
            answered, _ = self.ray.wait(pending, num_returns=1, timeout=wait_s)
            return answered
        self.never_set.wait(wait_s)
        return []

    def handle_outcome(self, slot: Slot, outcome: RecordingOutcome) -> None:
        """Update the queue with the outcome of a recording, and report progress. StorageError if the disk failed."""
        row = outcome.row
        if outcome.kind == "disk" or row is None:
            raise StorageError(outcome.reason)
        if outcome.kind == "server":
            self.lost_with_server[row.recording_id] = outcome.reason
            slot.log.warning(f"{slot.name} is replaced, {row.recording_id} goes to another server: {outcome.reason}")
            self.queue.server_failed(row, outcome.reason)
        elif outcome.kind == "fault":
            slot.log.warning(f"{row.recording_id} failed on {slot.name}: {outcome.reason}")
            self.queue.failed(row, outcome.reason)
        else:
            self.lost_with_server.clear()
            if outcome.kind == "gate":
                self.queue.rejected(row, outcome.reason)
            else:
                self.timeout.learn(row, outcome.seconds)
                self.queue.done(row)
            if slot.recordings_made >= self.recycle_every:
                slot.stop()
        made = self.queue.already_done + self.queue.recorded
        left = len(self.queue.remaining) + len(self.in_phase(Phase.RECORDING))
        self.on_progress(made, made + left, f"{row.town}, {row.trajectory_type}")

    def close(self) -> None:
        """Ask every actor to stop its server, wait a little, then kill all actors."""
        for slot in self.slots:
            slot.stop()
        stopping = [slot.pending for slot in self.in_phase(Phase.STOPPING)]
        if stopping:
            self.ray.wait(stopping, num_returns=len(stopping), timeout=STOP_TIMEOUT_S)
        for slot in self.slots:
            slot.kill()
