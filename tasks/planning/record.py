"""plan.json: which preset was planned, what it lacks, and which tables hold the plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.reading import read_json, read_sha256
from tasks.planning.errors import PlanningError
from tasks.planning.rows import PLAN_ANEW, PLAN_FILE
from tasks.planning.spares import SPARES_FILE


def read_plan_record(marker: Path) -> dict[str, Any]:
    """Return plan.json: `preset`, the shortages of recordings (`lacking`) and of spares (`lacking_spares`) as numbers,
    and those of recordings as sentences (`shortfalls`).

    PlanningError for a damaged file.
    """
    shortages = ("lacking", "lacking_spares")
    record: dict[str, Any] = {name: {} for name in shortages} | read_json(marker, PLAN_ANEW, error=PlanningError)
    if not isinstance(record.get("preset"), dict) or not all(isinstance(record[name], dict) for name in shortages):
        raise PlanningError(f"{marker} holds no preset, or no list of what is lacking: {PLAN_ANEW}")
    for types in (types for name in shortages for types in record[name].values()):
        if not isinstance(types, dict):
            raise PlanningError(f"{marker} says that {types!r:.80} is lacking: {PLAN_ANEW}")
    sentences = record.setdefault(
        "shortfalls",  # earlier plans have the numbers alone
        [f"{town}: {count} {name} lack." for town, lack in record["lacking"].items() for name, count in lack.items()],
    )
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise PlanningError(f"{marker} says shortfalls {sentences!r:.80}: {PLAN_ANEW}")
    return record


def check_tables(dataset_dir: Path, record: Mapping[str, Any]) -> None:
    """Raise PlanningError for a table of the plan that is not the one that was written (`files_sha256` of plan.json).

    Plans of earlier versions do not say which that was.
    """
    hashes = record.get("files_sha256", {})
    if not isinstance(hashes, dict):
        raise PlanningError(f"{dataset_dir / 'plan.json'} says files_sha256 {hashes!r:.80}: {PLAN_ANEW}")
    for name in (name for name in (PLAN_FILE, SPARES_FILE) if name in hashes):
        if read_sha256(dataset_dir / name, PLAN_ANEW, PlanningError) != hashes[name]:
            raise PlanningError(f"{dataset_dir / name} is not the table that was planned: {PLAN_ANEW}")
