"""The queue of a plan's recordings: which server gets which, and what happens to those that fail."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.actor_pool import ItemQueue
from infra.storage import sweep_temporary
from tasks.planning.rows import PlannedRecording
from tasks.planning.spares import count_without_spare, stand_ins
from tasks.recording.ledger import Ledger


@dataclass(frozen=True)
class RecordingSummary:
    """What `record_plan` did."""

    recorded: int
    already_done: int
    rejected: dict[str, str]
    """Recording id -> which quality gate it failed, in this run or an earlier one."""
    faults: dict[str, str]
    """Recording id -> why it could not be made in this run; the next run tries again."""
    quarantined: dict[str, str] = field(default_factory=dict)
    """Recording id -> why it could not be made in several runs; it is not tried again by itself."""
    left: int = 0
    """How many the run's deadline left to the next run."""
    spares: int = 0
    """How many of the recorded ones are spares that replace rejected or quarantined ones."""
    without_spare: dict[tuple[str, str], int] = field(default_factory=dict)
    """Town and trajectory type -> number of lost scenes that no spare is left for."""

    @property
    def total(self) -> int:
        return self.made + len(self.rejected) + len(self.faults) + len(self.quarantined) + self.left

    @property
    def made(self) -> int:
        return self.recorded + self.already_done

    def sentences(self) -> list[str]:
        """Return what happened, one sentence per line of the log."""
        before = f"{self.already_done} of {self.total} were recorded before"
        tried = self.recorded or self.faults or self.left
        head = f"Recorded {self.recorded}; {before}." if tried else f"{before}; nothing to record."
        lines = [head, *(f"Left out {key}, which a quality gate rejected: {why}" for key, why in self.rejected.items())]
        lines += [
            f"Left out {key}, which failed in run after run ({why}): retry_quarantined=true tries it again."
            for key, why in self.quarantined.items()
        ]
        if self.left:
            lines.append(f"{self.left} recordings are left to the next run: this one reached its deadline.")
        if self.spares:
            lines.append(f"{self.spares} spare recordings stand in for those that are left out.")
        lines += [
            f"{town} has no spare site left for {count} lost recordings of type {kind}."
            for (town, kind), count in self.without_spare.items()
        ]
        return [*lines, *(f"Could not record {key}: {why}" for key, why in self.faults.items())]


class RecordingQueue(ItemQueue[PlannedRecording]):
    """The recordings that a plan still lacks, by town in the plan's order, and the record of this run's failures."""

    def __init__(
        self,
        dataset_dir: Path,
        plan: Sequence[PlannedRecording],
        spares: Sequence[PlannedRecording],
        ledger: Ledger,
        log: logging.Logger | logging.LoggerAdapter,
    ) -> None:
        """Find the recordings that are neither done nor settled; remove what a killed run left unfinished."""
        (dataset_dir / "recordings").mkdir(exist_ok=True)
        sweep_temporary(dataset_dir / "recordings")
        self.plan, self.spares, self.ledger, self.log = plan, spares, ledger, log
        self.faults: dict[str, str] = {}
        self.recorded = 0
        self.spares_used: set[str] = set()
        """Ids of the spare recordings that replace lost ones, recorded or not yet."""
        towns = list(dict.fromkeys(row.town for row in plan))
        lost = self.lost()
        rows = [row for row in plan if row.recording_id not in lost and not ledger.is_done(row.recording_id)]
        super().__init__(sorted(rows, key=lambda row: towns.index(row.town)), key=lambda row: row.recording_id)
        self.already_done = len(plan) - len(rows) - sum(row.recording_id in lost for row in plan)
        self.add_spares()

    def lost(self) -> dict[str, str]:
        """Return why recordings are lost for good, by id."""
        return self.ledger.reasons("rejected", "quarantined")

    def add_spares(self) -> None:
        """Append the spares that replace lost recordings."""
        rows = {row.recording_id: row for row in self.spares}
        for recording_id in stand_ins(map(vars, self.plan), map(vars, self.spares), self.lost()):
            if recording_id in self.spares_used:
                continue
            self.spares_used.add(recording_id)
            if self.ledger.is_done(recording_id):
                self.already_done += 1
            else:
                row = rows[recording_id]
                self.log.info(
                    f"Spare recording {recording_id} ({row.town}, {row.trajectory_type}) stands in for a lost one."
                )
                self.remaining.append(row)

    def take(self, last: PlannedRecording | None) -> PlannedRecording:
        """Remove and return the next recording: of the town of `last` if there is one, since loading another town takes
        seconds; else of the town with the most left."""
        towns = Counter(row.town for row in self.remaining)
        if last is not None and last.town in towns:
            town = last.town
        else:
            town = max(towns, key=lambda name: (towns[name], name))
        index = next(index for index, row in enumerate(self.remaining) if row.town == town)
        row = self.remaining[index]
        del self.remaining[index]
        return row

    def done(self, row: PlannedRecording) -> None:
        self.ledger.mark_done(row.recording_id)
        self.recorded += 1

    def rejected(self, row: PlannedRecording, reason: str) -> None:
        """Settle a recording that failed a quality gate: it would fail again."""
        self.ledger.mark_rejected(row.recording_id, describe_failure(row, reason))
        self.add_spares()

    def give_up(self, row: PlannedRecording, reason: str) -> None:
        """Leave a recording to the next run, or quarantine it if it has failed in too many runs."""
        self.faults[row.recording_id] = describe_failure(row, reason)
        self.ledger.mark_failed(row.recording_id, self.faults[row.recording_id])
        self.add_spares()

    def leave_to_next_run(self, limit_s: float) -> None:
        """Note in the ledger that the run reached its deadline with recordings left."""
        left = len(self.remaining)
        self.note_end("run deadline", f"The run ended at its deadline of {limit_s:.0f} s with {left} recordings left.")

    def note_end(self, kind: str, reason: str) -> None:
        """Note in the ledger why the run ended before its work was done."""
        self.ledger.note("", "", kind, reason)

    def summary(self) -> RecordingSummary:
        quarantined = self.ledger.reasons("quarantined")
        faults = {key: why for key, why in self.faults.items() if key not in quarantined}
        return RecordingSummary(
            recorded=self.recorded,
            already_done=self.already_done,
            rejected=self.ledger.reasons("rejected"),
            faults=faults,
            quarantined=quarantined,
            left=len(self.remaining),
            spares=sum(self.ledger.is_done(recording_id) for recording_id in self.spares_used),
            without_spare=count_without_spare(map(vars, self.plan), map(vars, self.spares), self.lost()),
        )


def describe_failure(row: PlannedRecording, reason: str) -> str:
    return f"{row.town}, {row.trajectory_type}, {row.weather}: {reason}"
