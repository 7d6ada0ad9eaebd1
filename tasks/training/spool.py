"""The metric spool, metrics.jsonl: a row a line, `{"step", "time_s", name: number, ...}`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infra.storage import atomic_file


def append_row(spool: Path, row: dict[str, Any]) -> None:
    """Append a row; whole lines only, so that a reader never waits for the rest of one for long."""
    with open(spool, "a") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(spool: Path) -> list[dict[str, Any]]:
    """Return all whole rows."""
    return SpoolTail(spool).new_rows()


def rewind(spool: Path, step: int) -> None:
    """Drop rows of steps after `step` and a last line that was cut off: a resumed run writes them again."""
    if not spool.exists():
        return
    text = spool.read_text()
    rows = read_rows(spool)
    kept = "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step)
    if kept != text:
        with atomic_file(spool) as temporary:
            temporary.write_text(kept)


class SpoolTail:
    """Reads rows as they are appended."""

    def __init__(self, spool: Path) -> None:
        self.spool, self.offset = spool, 0

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the whole rows appended since the last call."""
        if not self.spool.exists():
            return []
        with open(self.spool, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
