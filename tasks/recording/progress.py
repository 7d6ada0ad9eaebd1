"""How far a data set's recording is: one view, computed from plan, ledger and the pool's state, for all who show it.

Prefect's artifacts (task.py), Ray's metrics (metrics.py) and `shareverse status` show this and compute nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.actor_pool import ActorState
from tasks.planning.spares import PlanRow, TownAndType, stand_ins, town_and_type
from tasks.recording.ledger import Event

LOST = ("rejected", "quarantined")
"""States of recordings that are lost for good; spares stand in for them."""
SILENT_S = 60.0
"""A run that has not told its state for so long has ended without saying so, or hangs."""


@dataclass(frozen=True)
class RunState:
    """What only the driver knows of a run, as of `now`. Times in seconds since 1970."""

    began: float
    now: float
    over: bool
    done_before: int
    """Recordings that were there when it began."""
    pairs_before: int
    server_s: float
    """Seconds for which servers were held, all together, also while they start."""
    servers: tuple[ActorState, ...]


@dataclass
class Cell:
    """The recordings of one trajectory type in one town."""

    wanted: int = 0
    """Planned, less those that are lost for good, plus the spares that stand in."""
    done: int = 0
    pairs_wanted: int = 0
    """Clip pairs: a recording gives one per window."""
    pairs: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """Recordings by what became of them: 'failed' (in this run or an earlier one), 'rejected', 'quarantined'."""


@dataclass(frozen=True)
class Progress:
    """How far the recording is."""

    cells: Mapping[TownAndType, Cell]
    run: RunState | None
    """The run that goes on or was the last; None before the first."""
    events: Sequence[Event]
    """What the run's servers ended of."""

    @property
    def wanted(self) -> int:
        return sum(cell.wanted for cell in self.cells.values())

    @property
    def done(self) -> int:
        return sum(cell.done for cell in self.cells.values())

    @property
    def pairs(self) -> int:
        return sum(cell.pairs for cell in self.cells.values())

    @property
    def elapsed_s(self) -> float:
        return self.run.now - self.run.began if self.run else 0.0

    @property
    def recorded(self) -> int:
        """Recordings made in this run."""
        return max(self.done - self.run.done_before, 0) if self.run else 0

    @property
    def per_hour(self) -> float | None:
        """Recordings an hour in this run; None while none is made."""
        return 3600 * self.recorded / self.elapsed_s if self.recorded and self.elapsed_s > 0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds until all is recorded, at this run's rate; None without a rate."""
        return 3600 * (self.wanted - self.done) / self.per_hour if self.per_hour else None

    @property
    def pairs_per_server_hour(self) -> float | None:
        if self.run is None or not self.recorded or not self.run.server_s:
            return None
        return 3600 * (self.pairs - self.run.pairs_before) / self.run.server_s

    @property
    def losses(self) -> dict[str, Counter[str]]:
        """Servers of this run by how they ended, and recordings by what became of them, in all runs."""
        recordings: Counter[str] = Counter()
        for cell in self.cells.values():
            recordings.update(cell.lost)
        return {"servers": Counter(event.kind for event in self.events if event.server), "recordings": recordings}

    def sentences(self, now: float | None = None) -> list[str]:
        """Return the figures of the whole, a sentence each. `now` tells a run that has gone silent."""
        percent = 100 * self.done / max(self.wanted, 1)
        lines = [f"{self.done} of {self.wanted} recordings are done ({percent:.1f} %), {self.pairs} clip pairs."]
        if self.run is None:
            return [*lines, "No run has told its state yet."]
        if self.per_hour is not None and self.left_s is not None:
            rate = f"{self.recorded} recordings in {duration(self.elapsed_s)}, {self.per_hour:.1f} an hour"
            per_server = f"{self.pairs_per_server_hour or 0:.1f} clip pairs per server-hour"
            left = f"; {duration(self.left_s)} left at this rate" if self.done < self.wanted else ""
            lines.append(f"This run: {rate}, {per_server}{left}.")
        else:
            lines.append(f"This run: nothing recorded in {duration(self.elapsed_s)}.")
        for what, counts in self.losses.items():
            if counts:
                listed = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
                lines.append(f"{what.capitalize()}: {listed}.")
        lines += [event.reason for event in self.events if not event.server]
        if self.run.over:
            lines.append("The run has ended.")
        elif now is not None and now - self.run.now > SILENT_S:
            silent = duration(now - self.run.now)
            lines.append(f"The run has told nothing for {silent}: it ended without a word, or hangs.")
        return lines

    def towns_table(self) -> list[dict[str, Any]]:
        """Return a row per town and trajectory type, in alphabetical order."""
        return [
            {
                "town": town, "type": kind, "done": cell.done, "of": cell.wanted, "clip pairs": cell.pairs,
                **{state: cell.lost[state] for state in ("failed", *LOST)},
            }
            for (town, kind), cell in sorted(self.cells.items(), key=lambda entry: entry[0])
        ]  # fmt: skip

    def servers_table(self) -> list[dict[str, Any]]:
        """Return a row per server, by node. The servers of a run that has ended are those that it had last."""
        servers = (
            sorted(self.run.servers, key=lambda server: (server.node, len(server.name), server.name))
            if self.run
            else []
        )
        return [
            {
                "node": server.node or "none", "server": server.name, "state": server.phase,
                "for": duration(server.phase_s), "recording": server.item, "done": server.items_done,
                "restarts": server.restarts, "memory": in_gb(server.usage.memory_bytes),
                "video memory": in_gb(server.usage.gpu_memory_bytes), "last restart": server.why,
            }
            for server in servers
        ]  # fmt: skip


def progress(
    plan: Iterable[PlanRow],
    spares: Iterable[PlanRow],
    states: Mapping[str, str],
    run: RunState | None,
    events: Sequence[Event],
) -> Progress:
    """Return the view. `plan`, `spares`: rows with the columns of a PlanRow and `windows`; `states`: by recording id,
    as `Ledger.states`; `events`: those of the run."""
    plan, spares = list(plan), list(spares)
    lost = {key for key, state in states.items() if state in LOST}
    standing_in = set(stand_ins(plan, spares, lost)) if lost else set()
    cells: dict[TownAndType, Cell] = {}
    for row in (*plan, *(row for row in spares if row["recording_id"] in standing_in | lost)):
        cell, key = cells.setdefault(town_and_type(row), Cell()), row["recording_id"]
        state, pairs = states.get(key, ""), len(row["windows"])
        if state not in LOST:
            cell.wanted, cell.pairs_wanted = cell.wanted + 1, cell.pairs_wanted + pairs
        if state == "done":
            cell.done, cell.pairs = cell.done + 1, cell.pairs + pairs
        elif state:
            cell.lost[state] += 1
    return Progress(cells, run, events)


def duration(seconds: float) -> str:
    """Return e.g. '2 d 3 h', '1 h 05 min', '12 min', '40 s'."""
    minutes = int(seconds // 60)
    if minutes >= 48 * 60:
        return f"{minutes // 1440} d {minutes % 1440 // 60} h"
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes >= 2 else f"{seconds:.0f} s"


def in_gb(amount: int | None) -> str:
    return "" if amount is None else f"{amount / 1e9:.1f} GB"
