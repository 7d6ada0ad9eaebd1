"""Recording a plan on a Ray pool: an actor a CARLA server. Recording goes on while one of them can.

Failures are charged to whom they belong. A server that does not start backs off and comes back; one that fails while it
records is replaced, and the recording in hand goes back unpunished; a recording that fails by itself is given up after
three attempts; a full disk is nobody's fault and ends the run.
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
from tasks.recording.slot import STAGGER_S, STOP_S, Outcome, Patience, Phase, Slot
from tasks.recording.work import RecordingSummary, Work

__all__ = ["RecordingSummary", "record_plan"]

LOG = logging.getLogger(__name__)
RECYCLE_EVERY = 50
"""Recordings after which a CARLA server is replaced: it leaks (trap 9); the embedded one does not."""
BYTES_PER_PIXEL = 0.35
"""Of a stored clip, with room to spare (measured: docs/LOG.md)."""
VICTIMS = 3
"""Recordings in a row, a slot, that ended with their server; then it is the servers that cannot record."""
LONGEST_WAIT_S = 10.0
RAY_LEARNS_S = 10.0


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
    """Record what the plan holds and the ledger does not, on `servers` parallel CARLA servers.

    A recording that fails its gates is settled, with its reason, and one that fails in three runs is quarantined; spare
    recordings stand in for both. What fails in this run stays open for the next. `recycle_every`: recordings after
    which a server is replaced, 50 of the real CARLA by default. `recording_limit_s`: after so long a recording's server
    is replaced, by default reckoned from its ticks. `retry_quarantined`: try what is quarantined again.

    RecordingError when no server can be started, or none gets a recording done; StorageError when the disk is full or
    cannot be written. What is finished is kept, and the next run goes on from it.
    """
    plan, spares = read_plan(dataset_dir / "plan.parquet"), read_spares(dataset_dir)
    ledger = Ledger(dataset_dir, log)
    try:
        if retry_quarantined:
            ledger.release_quarantined()
        work = Work(dataset_dir, plan, spares, ledger, log)
        total = work.already_done + len(work.todo)
        on_progress(work.already_done, total, f"{work.already_done} done before" if work.already_done else "")
        if work.todo:
            pixels = sum(2 * len(row.windows) * row.frames * row.view_width * row.view_height for row in work.todo)
            require_free_space(dataset_dir, int(pixels * BYTES_PER_PIXEL))
            servers = min(servers, len(work.todo))
            with ray_cluster(num_cpus=servers) as ray:
                slots = open_slots(ray, shared_threads(spec, servers), dataset_dir, servers, log)
                every = recycle_every or (RECYCLE_EVERY if spec.kind == "carla" else math.inf)
                Pool(ray, slots, work, every, Patience(recording_limit_s), on_progress).run()
        return work.summary()
    except OSError as error:
        path = Path(str(error.filename or dataset_dir))
        raise disk_fault(error, path) or RecordingError(
            f"{path} cannot be used ({error.strerror}): move it away, then run again."
        ) from error
    finally:
        ledger.close()


def shared_threads(spec: SimulatorSpec, servers: int) -> SimulatorSpec:
    """Return the spec with the machine's cores dealt to the embedded servers."""
    if spec.kind != "embedded" or "--threads" in spec.options:
        return spec
    threads = max(1, (os.cpu_count() or 1) // servers)
    return replace(spec, options=(*spec.options, "--threads", str(threads)))


def open_slots(ray: Any, spec: SimulatorSpec, dataset_dir: Path, servers: int, log: Any) -> list[Slot]:
    """Return a slot for each server, as many as Ray has CPUs for. RecordingError when that is none."""
    has = cpus_of(ray, servers)
    if has < servers:
        sentence = f"{servers} servers need {servers} CPU, and Ray has {has}"
        if has < 1:
            raise RecordingError(f"{sentence}: give Ray CPUs (ray start --num-cpus), or unset RAY_ADDRESS.")
        log.warning(f"{sentence}: recording on {has}.")
        servers = has
    remote = ray.remote(num_cpus=1, max_concurrency=2)(RecorderActor)
    gpus = deal_gpus(spec, servers)
    stagger_s = STAGGER_S if spec.kind == "carla" else 0.0
    return [
        Slot(
            ray, f"server{n}", lambda n=n: remote.remote(spec, str(dataset_dir), f"server{n}", gpus[n]),  # type: ignore[misc]
            spec.ready_s, n * stagger_s, log,
        )
        for n in range(servers)
    ]  # fmt: skip


def cpus_of(ray: Any, wanted: int) -> int:
    """Return how many CPUs Ray has. One that has just started learns of its own a moment later: wait for `wanted`."""
    deadline, nothing = time.monotonic() + RAY_LEARNS_S, threading.Event()
    while True:
        has = int(ray.cluster_resources().get("CPU", 0))
        if has >= wanted or time.monotonic() >= deadline:
            return has
        nothing.wait(0.2)


def deal_gpus(spec: SimulatorSpec, servers: int) -> list[int | None]:
    """Deal this machine's GPUs to the servers in turn."""
    if spec.kind != "carla":
        return [None] * servers
    import torch

    count = torch.cuda.device_count()
    return [number % count if count else None for number in range(servers)]


class Pool:
    """The driver's side: gives work to slots and takes what becomes of it."""

    def __init__(
        self,
        ray: Any,
        slots: Sequence[Slot],
        work: Work,
        recycle_every: float,
        patience: Patience,
        on_progress: OnProgress,
    ) -> None:
        self.ray, self.slots, self.work = ray, slots, work
        self.recycle_every, self.patience, self.on_progress = recycle_every, patience, on_progress
        self.victims: dict[str, str] = {}
        """Recordings that ended with their server since the last one that did not -> the reason."""
        self.nothing = threading.Event()
        """Never set; to wait for a time."""

    def run(self) -> None:
        """Keep every server busy until nothing is open."""
        try:
            while self.work.todo or self.in_phase(Phase.RECORDING):
                self.give_work()
                self.check_hope()
                answered = self.wait()
                now = time.monotonic()
                for slot in self.slots:
                    outcome = None
                    if slot.pending is not None and slot.pending in answered:
                        outcome = slot.answered()
                    elif slot.due <= now and (slot.phase is not Phase.WAITING or self.wanted()):
                        outcome = slot.overdue()
                    if outcome is not None:
                        self.take_in(slot, outcome)
        finally:
            self.close()

    def in_phase(self, *phases: Phase) -> list[Slot]:
        return [slot for slot in self.slots if slot.phase in phases]

    def wanted(self) -> bool:
        """Tell whether another server would find work."""
        return len(self.work.todo) > len(self.in_phase(Phase.PLACING, Phase.STARTING, Phase.READY))

    def give_work(self) -> None:
        for slot in self.in_phase(Phase.READY):
            if self.work.todo:
                row = self.work.take(slot.town)
                slot.record(row, self.patience.of(row))

    def check_hope(self) -> None:
        """Raise RecordingError when no server can be started, or they all fail before they have recorded anything."""
        if all(slot.hopeless for slot in self.slots):
            reasons = dict.fromkeys(slot.reason for slot in self.slots)
            raise RecordingError(f"no server can be started: {' '.join(reasons)}")
        if len(self.victims) > VICTIMS * len(self.slots) + VICTIMS:
            reason = next(reversed(self.victims.values()))
            raise RecordingError(
                f"the servers fail while they record, {len(self.victims)} recordings in a row, the last: {reason}"
            )

    def wait(self) -> list[Any]:
        """Return the calls that were answered, after the first answer or when a slot is due."""
        pending = [slot.pending for slot in self.slots if slot.pending is not None]
        dues = [slot.due for slot in self.slots if slot.phase is not Phase.WAITING or self.wanted()]
        wait_s = min(max(min(dues, default=math.inf) - time.monotonic(), 0.0), LONGEST_WAIT_S)
        if pending:
            answered, _ = self.ray.wait(pending, num_returns=1, timeout=wait_s)
            return answered
        self.nothing.wait(wait_s)
        return []

    def take_in(self, slot: Slot, outcome: Outcome) -> None:
        """Enter what became of a recording."""
        row = outcome.row
        if outcome.kind == "disk" or row is None:
            raise StorageError(outcome.reason)
        if outcome.kind == "server":
            self.victims[row.recording_id] = outcome.reason
            slot.log.warning(f"{slot.name} is replaced, {row.recording_id} goes to another server: {outcome.reason}")
            self.work.server_failed(row, outcome.reason)
        elif outcome.kind == "fault":
            slot.log.warning(f"{row.recording_id} failed on {slot.name}: {outcome.reason}")
            self.work.failed(row, outcome.reason)
        else:
            self.victims.clear()
            if outcome.kind == "gate":
                self.work.rejected(row, outcome.reason)
            else:
                self.patience.learn(row, outcome.seconds)
                self.work.done(row)
            if slot.made >= self.recycle_every:
                slot.stop()
        made = self.work.already_done + self.work.recorded
        left = len(self.work.todo) + len(self.in_phase(Phase.RECORDING))
        self.on_progress(made, made + left, f"{row.town}, {row.trajectory_type}")

    def close(self) -> None:
        """Ask every actor to stop its server, wait a little, and kill them all."""
        for slot in self.slots:
            slot.stop()
        stopping = [slot.pending for slot in self.in_phase(Phase.STOPPING)]
        if stopping:
            self.ray.wait(stopping, num_returns=len(stopping), timeout=STOP_S)
        for slot in self.slots:
            slot.kill()
