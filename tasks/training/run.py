"""A run: one configuration trained on one data set, in `runs/<id>/`.

run.json                  what decides the run, and its name
metrics.jsonl             the metric spool, a row a line (training never waits for MLflow)
checkpoints/step-000200/  engine/ (DeepSpeed), model/ (weights to sample with), trainer.json; renamed when complete
evaluation/               videos, tables, report.json
finished.json             written last: trained to the end and scored
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.storage import atomic_file, canonical_json, home, sha256_bytes
from model.presets import Preset
from tasks.sharding.reader import ClipIndex


class TrainingError(RuntimeError):
    """A run or checkpoint that is missing or cannot go on: what, and what to do."""


@dataclass(frozen=True)
class Run:
    """What decides a run; its id is the hash of it."""

    dataset: str
    dataset_digest: str
    preset: Preset
    name: str = ""

    @property
    def run_id(self) -> str:
        identity = {"dataset_digest": self.dataset_digest, "preset": self.preset.identity(), "name": self.name}
        return sha256_bytes(canonical_json(identity).encode())[:12]

    @property
    def folder(self) -> Path:
        return home() / "runs" / self.run_id

    @property
    def dataset_dir(self) -> Path:
        return home() / "datasets" / self.dataset

    @property
    def spool(self) -> Path:
        return self.folder / "metrics.jsonl"

    def latest_checkpoint(self) -> Path | None:
        """Return the complete checkpoint folder with the most steps, None before the first."""
        complete = sorted(path.parent for path in self.folder.glob("checkpoints/step-*/trainer.json"))
        return complete[-1] if complete else None

    def finished(self) -> dict[str, Any] | None:
        """Return finished.json of a run that was trained to the end and scored, else None."""
        marker = self.folder / "finished.json"
        return json.loads(marker.read_text()) if marker.exists() else None


def steps_of(checkpoint: Path) -> int:
    """Return the optimiser steps of a checkpoint folder."""
    return int(checkpoint.name.removeprefix("step-"))


def create_run(dataset: str, preset: Preset, name: str = "", *, mark_last: bool = True) -> Run:
    """Return the run of this configuration on the data set as it is now; write run.json where it is new.

    `mark_last`: the run is the one that commands without a run id mean. ShardError when the data set is not finished.
    """
    run = Run(dataset, ClipIndex(home() / "datasets" / dataset).digest, preset, name)
    if not (run.folder / "run.json").exists():
        record = {"run_id": run.run_id, "dataset": dataset, "dataset_digest": run.dataset_digest,
                  "preset": preset.to_dict(), "name": name}  # fmt: skip
        with atomic_file(run.folder / "run.json") as path:
            path.write_text(json.dumps(record, indent=1))
    if mark_last:
        with atomic_file(home() / "runs" / "last") as path:
            path.write_text(run.run_id)
    return run


def read_run(run_id: str = "") -> Run:
    """Return an existing run; empty: the one opened last. TrainingError when there is none."""
    runs = home() / "runs"
    if not run_id:
        if not (runs / "last").exists():
            raise TrainingError(f"{runs} holds no run yet: run train-shareverse first.")
        run_id = (runs / "last").read_text().strip()
    marker = runs / run_id / "run.json"
    if not marker.exists():
        known = ", ".join(sorted(path.parent.name for path in runs.glob("*/run.json"))) or "none"
        raise TrainingError(f"there is no run {run_id!r} in {runs}: the runs are {known}.")
    record = json.loads(marker.read_text())
    run = Run(record["dataset"], record["dataset_digest"], Preset.from_dict(record["preset"]), record["name"])
    if run.run_id != run_id:
        raise TrainingError(f"{marker} was changed (it hashes to {run.run_id}): restore it, or start a new run.")
    return run
