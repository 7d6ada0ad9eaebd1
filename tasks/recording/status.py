"""Prints how far a data set's recording is, for `shareverse status DATASET`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.storage import StorageError
from tasks.recording.errors import RecordingError
from tasks.recording.watch import read_progress

ERRORS = (RecordingError, StorageError)
"""What the command says in one sentence."""


def print_progress(dataset_dir: Path) -> None:
    """Print the figures of the whole, then the tables by town and type and by server. One of ERRORS."""
    view = read_progress(dataset_dir)
    print("\n".join(view.sentences(time.time())))
    for rows in (view.towns_table(), view.servers_table()):
        if rows:
            print("", *text_table(rows), sep="\n")


def text_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return lines with a column per key: numbers to the right, a column that is empty in all rows left out."""
    names = [name for name in rows[0] if any(row[name] != "" for row in rows)]
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    right = [all(isinstance(row[name], int) for row in rows) for name in names]
    return [
        "  ".join(
            text.rjust(width) if numbers else text.ljust(width)
            for text, width, numbers in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]
