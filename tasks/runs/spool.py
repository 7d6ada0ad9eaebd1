"""The metric spool, metrics.jsonl: one row per line, `{"step", "time_s", name: number, ...}`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infra.reading import parse_json, read_bytes
from infra.storage import atomic_file
from tasks.runs.errors import RunError


def append_row(spool: Path, row: dict[str, Any]) -> None:
    """Append a row; whole lines only, so that a reader never waits for the rest of one for long."""
    with open(spool, "a") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def read_rows(spool: Path) -> list[dict[str, Any]]:
    """Return all whole rows. RunError for a damaged line."""
    return SpoolTail(spool).new_rows()


def rewind(spool: Path, step: int) -> None:
    """Drop rows of steps after `step` and a last line that was cut off: a resumed run writes them again.

    RunError for a damaged line; the file stays as it is then.
    """
    if not spool.exists():
        return
    rows = read_rows(spool)
    kept = "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step)
    if kept.encode() != spool.read_bytes():
        with atomic_file(spool) as temporary:
            temporary.write_text(kept)


def row_of(line: bytes, where: str) -> dict[str, Any]:
    """Return one row. RunError when the line is none."""
    advice = "remove that line (its metrics are lost) and run again."
    row: dict[str, Any] = parse_json(line, where, advice, error=RunError)
    for name, kind in (("step", int), ("time_s", (int, float))):
        if not isinstance(row.get(name), kind) or isinstance(row[name], bool):
            raise RunError(f"{where} is no row of metrics ({name} is {row.get(name)!r}): {advice}")
    return row


class SpoolTail:
    """Reads rows as they are appended."""

    def __init__(self, spool: Path) -> None:
        self.spool, self.offset, self.lines = spool, 0, 0

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the whole rows appended since the last call. RunError for a damaged line."""
        if not self.spool.exists():
            return []
        data = read_bytes(self.spool, "move it aside and run again.", RunError)[self.offset :]
        whole = data[: data.rfind(b"\n") + 1]
        rows = [
            row_of(line, f"line {self.lines + number} of {self.spool}")
            for number, line in enumerate(whole.splitlines(), 1)
        ]
        self.offset += len(whole)
        self.lines += len(rows)
        return rows
