"""trainer.json: what a checkpoint is, and the hash of every file in it, so that a damaged one is never gone on from."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from infra.reading import read_json, read_sha256
from infra.storage import sha256_file
from tasks.runs.errors import RunError
from tasks.runs.run import STEP_FOLDER, Run, steps_of

RECORD = "trainer.json"


def file_hashes(checkpoint: Path) -> dict[str, str]:
    """Return the sha256 of every file of a checkpoint but its record, by path within it; as many at a time as cores."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != RECORD)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(pool.map(sha256_file, files))
    return {str(file.relative_to(checkpoint)): found for file, found in zip(files, hashes, strict=True)}


def repair_advice(checkpoint: Path) -> str:
    """Return what to do about a damaged checkpoint: it is refused, not passed over, as only its owner knows why."""
    older = [
        path.parent.name
        for path in sorted(checkpoint.parent.glob(f"step-*/{RECORD}"))
        if STEP_FOLDER.fullmatch(path.parent.name) and steps_of(path.parent) < steps_of(checkpoint)
    ]
    back = f"go on from {older[-1]}, which is there" if older else "begin anew, as there is no earlier one"
    return f"restore it, or remove that folder to {back}."


def read_checkpoint_record(checkpoint: Path) -> dict[str, Any]:
    """Return a checkpoint's trainer.json. RunError for a damaged one."""
    record: dict[str, Any] = read_json(checkpoint / RECORD, repair_advice(checkpoint), error=RunError)
    files = record.get("files", {})
    if not isinstance(files, dict) or not all(isinstance(found, str) for found in files.values()):
        raise RunError(f"{checkpoint / RECORD} holds no hashes of files: {repair_advice(checkpoint)}")
    return record


def check_resumable(checkpoint: Path, run: Run, processes: int) -> None:
    """Raise RunError where a group of so many processes cannot go on from a checkpoint of the run."""
    record = read_checkpoint_record(checkpoint)
    for key, kind in (("processes", int), ("run_id", str), ("step", int)):
        if not isinstance(record.get(key), kind):
            raise RunError(f"{checkpoint / RECORD} holds {key} {record.get(key)!r}: {repair_advice(checkpoint)}")
    if record["processes"] != processes:
        raise RunError(
            f"{checkpoint} was written by {record['processes']} processes and cannot be resumed by {processes} "
            f"(ZeRO cuts its state by process): train with processes={record['processes']}, or give a run_name "
            "for a new run."
        )
    if record["run_id"] != run.run_id or record["step"] != steps_of(checkpoint):
        raise RunError(f"{checkpoint} belongs to run {record['run_id']}, step {record['step']}: remove it.")


def check_files(checkpoint: Path, part: str = "") -> None:
    """Raise RunError when a file of a checkpoint, or of its folder `part`, is gone or not what its hash says.

    Checkpoints of earlier versions hold no hashes: nothing is checked in them here.
    """
    files = read_checkpoint_record(checkpoint).get("files", {})
    expected = {name: found for name, found in files.items() if name.startswith(part)}

    def damage(name: str) -> str:
        found = read_sha256(checkpoint / name, repair_advice(checkpoint), RunError)
        return "" if found == expected[name] else f"{name} is not what its hash says"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        damaged = [found for found in pool.map(damage, expected) if found]
    if damaged:
        raise RunError(f"{checkpoint} is damaged: {damaged[0]}: {repair_advice(checkpoint)}")
