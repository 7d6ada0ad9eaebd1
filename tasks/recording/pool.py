"""Recording a plan on a Ray pool: an actor a CARLA server; crashed servers are replaced, their recordings retried."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra.carla_servers import CarlaServer, CarlaServerError, SimulatorSpec
from infra.ray_cluster import ray_cluster
from infra.storage import OnProgress, StorageError, no_progress, require_free_space, sweep_temporary
from tasks.planning.rows import PlannedRecording, read_plan
from tasks.recording.errors import GateError, RecordingError
from tasks.recording.ledger import Ledger
from tasks.recording.recorder import Recorder
from tasks.recording.rig import Rig

ATTEMPTS = 3
RECYCLE_EVERY = 50
"""Recordings after which a CARLA server is replaced: it leaks (trap 9); the embedded one does not."""
LOAD_S, CALL_S = 120.0, 20.0
"""Patience with a town's loading and with any other call but a tick."""
LONGEST_SUBSTEPPED_S = 0.1
"""CARLA's ten substeps of 0.01 s; kinematic cars need none."""
BYTES_PER_PIXEL = 0.35
"""Of a stored clip, with room to spare (measured: docs/LOG.md)."""


@dataclass(frozen=True)
class RecordingSummary:
    """What `record_plan` did."""

    recorded: int
    already_done: int
    rejected: dict[str, str]
    """Recording id -> which quality gate it did not pass, now or in an earlier run."""
    faults: dict[str, str]
    """Recording id -> why it could not be made."""

    @property
    def total(self) -> int:
        return self.recorded + self.already_done + len(self.rejected) + len(self.faults)

    def sentences(self) -> list[str]:
        """Return what happened, a line each, for the log."""
        before = f"{self.already_done} of {self.total} were recorded before"
        head = (
            f"Recorded {self.recorded}; {before}." if self.recorded or self.faults else f"{before}; nothing to record."
        )
        left_out = [f"Left out {key}, which a quality gate rejected: {why}" for key, why in self.rejected.items()]
        return [head, *left_out, *(f"Could not record {key}: {why}" for key, why in self.faults.items())]


class RecorderActor:
    """Owns one CARLA server. After a fault the driver replaces the whole process: a client whose server is dead or
    confused hangs in its own clean-up (trap 5), and the server dies with the process."""

    def __init__(self, spec: SimulatorSpec, dataset_dir: str, name: str, gpu: int | None = None) -> None:
        self.dataset_dir = Path(dataset_dir)
        self.server = CarlaServer(spec, self.dataset_dir / "logs", name, gpu)
        self.recorder: Recorder | None = None
        self.place: tuple = ()

    def record(self, recording: PlannedRecording) -> tuple[str, str]:
        """Record; return ("done", "") or the kind of failure, "gate", "fault" or "fatal", and its sentence."""
        try:
            self.recorder_for(recording).record(recording, self.dataset_dir)
        except GateError as error:
            return "gate", str(error)
        except (CarlaServerError, StorageError) as error:
            return "fatal", str(error)
        except (RecordingError, RuntimeError, OSError) as error:
            return "fault", str(error)
        return "done", ""

    def recorder_for(self, recording: PlannedRecording) -> Recorder:
        """Return a recorder in the recording's town: the current one, or a new episode with a new rig."""
        import carla

        place = (recording.town, recording.view_width, recording.view_height, recording.record_ground_truth,
                 recording.fixed_delta_s)  # fmt: skip
        if self.recorder is not None and self.place == place:
            return self.recorder
        if self.recorder is not None:
            self.recorder.rig.destroy()
            self.recorder = None
        if not self.server.alive():
            self.server.start()
            threading.Thread(target=self.die_with_server, daemon=True).start()
        client = self.server.client
        client.set_timeout(LOAD_S)
        world = client.load_world(recording.town, True, carla.MapLayer.All)
        client.set_timeout(CALL_S)
        settings = world.get_settings()
        settings.synchronous_mode, settings.fixed_delta_seconds = True, recording.fixed_delta_s
        settings.substepping = recording.fixed_delta_s <= LONGEST_SUBSTEPPED_S
        world.apply_settings(settings)
        rig = Rig(world, recording.view_width, recording.view_height, ground_truth=recording.record_ground_truth)
        if recording.record_ground_truth:
            rig.find_instance_codes(client)
        self.recorder, self.place = Recorder(world, client, rig), place
        return self.recorder

    def die_with_server(self) -> None:
        """End this process when the server's ends: a tick would wait a minute for an answer."""
        assert self.server.process is not None
        self.server.process.wait()
        os._exit(1)


def open_work(dataset_dir: Path, plan: Sequence[PlannedRecording], ledger: Ledger) -> list[PlannedRecording]:
    """Return what is not settled, grouped by town in the plan's order; remove what a killed run left half done."""
    recordings = dataset_dir / "recordings"
    recordings.mkdir(exist_ok=True)
    sweep_temporary(recordings)
    order = list(dict.fromkeys(row.town for row in plan))
    settled = ledger.reasons("rejected")
    todo = [row for row in plan if row.recording_id not in settled and not ledger.is_done(row.recording_id)]
    return sorted(todo, key=lambda row: order.index(row.town))


def take(todo: deque[PlannedRecording], town: str | None) -> PlannedRecording:
    """Take the next recording, of `town` if there is one: a change of town costs seconds."""
    for index, row in enumerate(todo):
        if row.town == town:
            del todo[index]
            return row
    busiest = max({row.town for row in todo}, key=lambda name: (sum(row.town == name for row in todo), name))
    return take(todo, busiest)


def record_plan(
    dataset_dir: Path, spec: SimulatorSpec, *, servers: int = 2, on_progress: OnProgress = no_progress
) -> RecordingSummary:
    """Record what the plan holds and the ledger does not, on `servers` parallel CARLA servers.

    Faults of a server, or its death, cost the recording in hand: it is tried again, three times in all. A recording
    that fails its gates is settled, with its reason; one that fails all attempts stays open for the next run.
    RecordingError when no server can be started or the disk is full.
    """
    plan = read_plan(dataset_dir / "plan.parquet")
    ledger = Ledger(dataset_dir)
    try:
        todo = deque(open_work(dataset_dir, plan, ledger))
        rejected = ledger.reasons("rejected")
        already = len(plan) - len(todo) - len(rejected)
        on_progress(already, len(plan), f"{already} done before" if already else "")
        if not todo:
            return RecordingSummary(0, already, rejected, {})
        pixels = sum(2 * len(row.windows) * row.frames * row.view_width * row.view_height for row in todo)
        require_free_space(dataset_dir, int(pixels * BYTES_PER_PIXEL))
        servers = min(servers, len(todo))
        if spec.kind == "embedded" and "--threads" not in spec.options:
            threads = max(1, (os.cpu_count() or 1) // servers)
            spec = replace(spec, options=(*spec.options, "--threads", str(threads)))
        with ray_cluster(num_cpus=servers) as ray:
            pool = Pool(ray, spec, dataset_dir, servers, ledger, todo)
            recorded = pool.run(already, len(plan), on_progress)
        return RecordingSummary(recorded, already, ledger.reasons("rejected"), pool.faults)
    finally:
        ledger.close()


class Pool:
    """The driver's side: which actor records what, and what became of it."""

    def __init__(
        self,
        ray: Any,
        spec: SimulatorSpec,
        dataset_dir: Path,
        servers: int,
        ledger: Ledger,
        todo: deque[PlannedRecording],
    ) -> None:
        self.ray, self.ledger, self.todo = ray, ledger, todo
        self.recycle_every = RECYCLE_EVERY if spec.kind == "carla" else math.inf
        self.remote = ray.remote(RecorderActor)
        gpus = self.gpus(spec, servers)
        self.make = [
            lambda n=number: self.remote.remote(spec, str(dataset_dir), f"server{n}", gpus[n])
            for number in range(servers)
        ]
        self.actors = [make() for make in self.make]
        self.counts = [0] * servers
        self.towns: list[str | None] = [None] * servers
        self.attempts: dict[str, int] = {}
        self.faults: dict[str, str] = {}

    @staticmethod
    def gpus(spec: SimulatorSpec, servers: int) -> list[int | None]:
        """Deal this machine's GPUs to the servers in turn."""
        import torch

        count = torch.cuda.device_count() if spec.kind == "carla" else 0
        return [number % count if count else None for number in range(servers)]

    def run(self, already: int, total: int, on_progress: OnProgress) -> int:
        """Keep every actor busy until nothing is open; return the number of recordings made."""
        busy: dict[Any, tuple[int, PlannedRecording]] = {}
        recorded = 0
        try:
            while self.todo or busy:
                idle = set(range(len(self.actors))) - {number for number, _ in busy.values()}
                for number in sorted(idle)[: len(self.todo)]:
                    row = take(self.todo, self.towns[number])
                    self.towns[number] = row.town
                    busy[self.actors[number].record.remote(row)] = (number, row)
                finished, _ = self.ray.wait(list(busy), num_returns=1)
                number, row = busy.pop(finished[0])
                outcome, reason = self.outcome(finished[0], number)
                self.counts[number] += 1
                if outcome == "fault" or self.counts[number] >= self.recycle_every:
                    self.replace(number)
                if outcome == "done":
                    self.ledger.done(row.recording_id)
                    recorded += 1
                elif outcome == "fatal":
                    raise RecordingError(reason)
                else:
                    self.put_back(row, outcome, reason)
                on_progress(already + recorded, total, f"{row.town}, {row.trajectory_type}")
        finally:
            for actor in self.actors:
                self.ray.kill(actor)  # their servers die with them
        return recorded

    def outcome(self, reference: Any, number: int) -> tuple[str, str]:
        """Return what an actor answered; its death is a fault."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayActorError:
            return "fault", f"server{number} or its recorder died (see logs/server{number}.log)."

    def replace(self, number: int) -> None:
        """Put a fresh actor with a fresh server in an actor's place."""
        self.ray.kill(self.actors[number])
        self.actors[number], self.counts[number], self.towns[number] = self.make[number](), 0, None

    def put_back(self, row: PlannedRecording, outcome: str, reason: str) -> None:
        """Try a recording again, unless it failed a gate or too often."""
        count = self.attempts[row.recording_id] = self.attempts.get(row.recording_id, 0) + 1
        if outcome == "fault" and count < ATTEMPTS:
            self.todo.appendleft(row)
            return
        where = f"{row.town}, {row.trajectory_type}, {row.weather}: {reason}"
        if outcome == "gate":
            self.ledger.rejected(row.recording_id, where)
        else:
            self.faults[row.recording_id] = where
            self.ledger.failed(row.recording_id, where)
