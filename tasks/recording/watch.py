"""Watches a run for the driver: notes in the ledger why servers ended, and tells its progress every few seconds."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from infra.actor_pool import ActorEnd, ActorState, Phase, PoolWatcher, Usage
from infra.reading import read_json, read_table
from infra.storage import StorageError, atomic_file
from tasks.planning.rows import PLAN_ANEW, PLAN_FILE
from tasks.planning.spares import SPARES_FILE
from tasks.recording.errors import RecordingError
from tasks.recording.ledger import read_ledger
from tasks.recording.progress import Progress, RunState, progress
from tasks.recording.work import RecordingQueue

STATE_FILE = "servers.json"
"""What a run says of itself beside the ledger, for programs that look from outside."""
EVERY_S = 5.0
MOST_OF_THE_TIME = 0.02
"""Share of the driver's time that telling may take: large plans are told less often."""
HOLDING = {Phase.STARTING.value, Phase.READY.value, Phase.WORKING.value, Phase.STOPPING.value}
"""What a slot does while it holds a server's place on a node."""
COLUMNS = ("recording_id", "scene_id", "variant", "town", "split", "trajectory_type", "windows")


class RunWatch(PoolWatcher):
    """Tells how far a run is: in the file STATE_FILE, and to each of `shown`."""

    def __init__(
        self,
        dataset_dir: Path,
        queue: RecordingQueue,
        shown: Sequence[Callable[[Progress], None]] = (),
        ended: Sequence[Callable[[ActorEnd], None]] = (),
    ) -> None:
        """`shown` take the progress, on the driver's thread; `ended` take how a server ended."""
        self.dataset_dir, self.queue, self.shown, self.ended = dataset_dir, queue, shown, ended
        self.plan, self.spares = [vars(row) for row in queue.plan], [vars(row) for row in queue.spares]
        before = progress(self.plan, self.spares, queue.ledger.states(), None, [])
        self.run = RunState(time.time(), time.time(), False, before.done, before.pairs, 0.0, ())
        self.looked = time.monotonic()
        self.due = self.looked

    def actor_ended(self, end: ActorEnd) -> None:
        self.queue.ledger.note(end.actor, end.node, end.kind, end.reason)
        for take in self.ended:
            take(end)

    def look(self, states: Callable[[], list[ActorState]]) -> None:
        began = time.monotonic()
        if began >= self.due:
            self.tell(states())
            cost_s = time.monotonic() - began
            self.due = began + max(EVERY_S, cost_s / MOST_OF_THE_TIME)

    def tell(self, servers: Sequence[ActorState], *, over: bool = False) -> None:
        """Write and show how far the run is."""
        now = time.monotonic()
        held_s = (now - self.looked) * sum(server.phase in HOLDING for server in servers)
        self.looked = now
        self.run = dataclasses.replace(
            self.run, now=time.time(), over=over, server_s=self.run.server_s + held_s, servers=tuple(servers)
        )
        with atomic_file(self.dataset_dir / STATE_FILE) as path:
            path.write_text(json.dumps(dataclasses.asdict(self.run), indent=1))
        ledger = self.queue.ledger
        view = progress(self.plan, self.spares, ledger.states(), self.run, ledger.events(self.run.began))
        for show in self.shown:
            show(view)


def read_progress(dataset_dir: Path) -> Progress:
    """Return how far a data set's recording is, from its files, also while a run writes them.

    RecordingError where there is no plan or no ledger; PlanningError, RecordingError or StorageError for a damaged one.
    """
    if not (dataset_dir / PLAN_FILE).is_file():
        raise RecordingError(f"{dataset_dir} has no plan: name a data set that was planned.")
    run = read_run_state(dataset_dir / STATE_FILE)
    states, events = read_ledger(dataset_dir, run.began if run else float("inf"))
    spares = dataset_dir / SPARES_FILE
    return progress(
        read_rows(dataset_dir / PLAN_FILE), read_rows(spares) if spares.exists() else [], states, run, events
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return a plan's rows without their poses, which are most of it."""
    return read_table(path, PLAN_ANEW, COLUMNS, RecordingError).select(COLUMNS).to_pylist()


def read_run_state(path: Path) -> RunState | None:
    """Return what a run last said of itself, None where none did. StorageError for a damaged file."""
    if not path.exists():
        return None
    advice = "remove it; the next run writes it."
    values = read_json(path, advice)
    try:
        servers = tuple(ActorState(**server | {"usage": Usage(**server["usage"])}) for server in values["servers"])
        return RunState(**values | {"servers": servers})
    except (TypeError, KeyError) as error:
        raise StorageError(f"{path} is no state of a run: {advice}") from error
