"""What is still to be recorded: who gets what, and what becomes of what failed."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.storage import sweep_temporary
from tasks.planning.rows import PlannedRecording
from tasks.planning.spares import count_without_spare, stand_ins
from tasks.recording.ledger import Ledger

ATTEMPTS = 3
"""Of a recording in one run."""
SUSPICIOUS = 8
"""Servers that failed with the same recording in hand; then it is the recording's fault after all."""


@dataclass(frozen=True)
class RecordingSummary:
    """What `record_plan` did."""

    recorded: int
    already_done: int
    rejected: dict[str, str]
    """Recording id -> which quality gate it did not pass, now or in an earlier run."""
    faults: dict[str, str]
    """Recording id -> why it could not be made in this run; the next one tries again."""
    quarantined: dict[str, str] = field(default_factory=dict)
    """Recording id -> why it could not be made, run after run; it is not tried again by itself."""
    spares: int = 0
    """Of the recorded ones, now or before: those that stand in for rejected and quarantined ones."""
    count_without_spare: dict[tuple[str, str], int] = field(default_factory=dict)
    """Town and type -> how many lost ones no spare is left for."""

    @property
    def total(self) -> int:
        return self.made + len(self.rejected) + len(self.faults) + len(self.quarantined)

    @property
    def made(self) -> int:
        return self.recorded + self.already_done

    def sentences(self) -> list[str]:
        """Return what happened, a line each, for the log."""
        before = f"{self.already_done} of {self.total} were recorded before"
        head = (
            f"Recorded {self.recorded}; {before}." if self.recorded or self.faults else f"{before}; nothing to record."
        )
        lines = [head, *(f"Left out {key}, which a quality gate rejected: {why}" for key, why in self.rejected.items())]
        lines += [
            f"Left out {key}, which failed in run after run ({why}): retry_quarantined=true tries it again."
            for key, why in self.quarantined.items()
        ]
        if self.spares:
            lines.append(f"{self.spares} spare recordings stand in for those that are left out.")
        lines += [
            f"{town} has no spare site left for {count} lost recordings of type {kind}."
            for (town, kind), count in self.count_without_spare.items()
        ]
        return [*lines, *(f"Could not record {key}: {why}" for key, why in self.faults.items())]


class Work:
    """The open recordings of a plan, in its order of towns; and the books of this run."""

    def __init__(
        self,
        dataset_dir: Path,
        plan: Sequence[PlannedRecording],
        spares: Sequence[PlannedRecording],
        ledger: Ledger,
        log: logging.Logger | logging.LoggerAdapter,
    ) -> None:
        """Find what is not settled; remove what a killed run left half done."""
        (dataset_dir / "recordings").mkdir(exist_ok=True)
        sweep_temporary(dataset_dir / "recordings")
        self.plan, self.spares, self.ledger, self.log = plan, spares, ledger, log
        self.attempts: Counter[str] = Counter()
        self.servers_lost: Counter[str] = Counter()
        self.faults: dict[str, str] = {}
        self.recorded = 0
        self.in_use: set[str] = set()
        """Spare recordings that stand in, made or to be made."""
        order = list(dict.fromkeys(row.town for row in plan))
        settled = self.lost()
        rows = [row for row in plan if row.recording_id not in settled and not ledger.is_done(row.recording_id)]
        self.todo = deque(sorted(rows, key=lambda row: order.index(row.town)))
        self.already_done = len(plan) - len(rows) - sum(row.recording_id in settled for row in plan)
        self.call_up_spares()

    def lost(self) -> dict[str, str]:
        """Return what will not be made, by id."""
        return self.ledger.reasons("rejected", "quarantined")

    def call_up_spares(self) -> None:
        """Let spares take the places of lost recordings."""
        rows = {row.recording_id: row for row in self.spares}
        for key in stand_ins(map(vars, self.plan), map(vars, self.spares), self.lost()):
            if key in self.in_use:
                continue
            self.in_use.add(key)
            if self.ledger.is_done(key):
                self.already_done += 1
            else:
                row = rows[key]
                self.log.info(f"Spare recording {key} ({row.town}, {row.trajectory_type}) stands in for a lost one.")
                self.todo.append(row)

    def take(self, town: str | None) -> PlannedRecording:
        """Take the next recording, of `town` if there is one, else of the busiest: a change of town costs seconds."""
        towns = Counter(row.town for row in self.todo)
        if town not in towns:
            town = max(towns, key=lambda name: (towns[name], name))
        index = next(index for index, row in enumerate(self.todo) if row.town == town)
        row = self.todo[index]
        del self.todo[index]
        return row

    def done(self, row: PlannedRecording) -> None:
        self.ledger.done(row.recording_id)
        self.recorded += 1

    def rejected(self, row: PlannedRecording, reason: str) -> None:
        """Settle a recording that was made and is not good enough."""
        self.ledger.rejected(row.recording_id, described(row, reason))
        self.call_up_spares()

    def failed(self, row: PlannedRecording, reason: str) -> None:
        """Try a recording again, before all others, unless it failed too often."""
        self.attempts[row.recording_id] += 1
        if self.attempts[row.recording_id] < ATTEMPTS:
            self.todo.appendleft(row)
        else:
            self.give_up(row, reason)

    def server_failed(self, row: PlannedRecording, reason: str) -> None:
        """Put a recording back unpunished, after all others, unless servers keep ending with it in hand."""
        self.servers_lost[row.recording_id] += 1
        count = self.servers_lost[row.recording_id]
        if count < SUSPICIOUS:
            self.todo.append(row)
        else:
            self.give_up(row, f"{count} servers failed with it in hand, the last: {reason}")

    def give_up(self, row: PlannedRecording, reason: str) -> None:
        """Leave a recording to the next run, or to none if it has failed in too many."""
        self.faults[row.recording_id] = described(row, reason)
        self.ledger.failed(row.recording_id, self.faults[row.recording_id])
        self.call_up_spares()

    def summary(self) -> RecordingSummary:
        quarantined = self.ledger.reasons("quarantined")
        faults = {key: why for key, why in self.faults.items() if key not in quarantined}
        lacking = count_without_spare(map(vars, self.plan), map(vars, self.spares), self.lost())
        spares = sum(self.ledger.is_done(key) for key in self.in_use)
        return RecordingSummary(
            self.recorded, self.already_done, self.ledger.reasons("rejected"), faults, quarantined, spares, lacking
        )


def described(row: PlannedRecording, reason: str) -> str:
    return f"{row.town}, {row.trajectory_type}, {row.weather}: {reason}"
