"""A run: one configuration trained on one data set, in `runs/<id>/`.

run.json                  what decides the run, and its name
metrics.jsonl             the metric spool, one row per line (training never waits for MLflow)
checkpoints/step-000200/  engine/ (DeepSpeed), model/ (weights to sample with), trainer.json; renamed when complete;
                          of a LoRA run also adapter/ (its low-rank updates, in peft's layout)
evaluation/               videos, tables, report.json
finished.json             written last: trained to the end and scored
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.places import dataset_folder, is_url
from infra.reading import one_line, read_bytes, read_json
from infra.storage import atomic_file, canonical_json, home, make_folder, sha256_bytes
from model.presets import Preset, PresetError
from model.weights import WeightsError, built_in_digest
from tasks.runs.errors import RunError
from tasks.sharding.reader import ClipIndex

RUN_ID = re.compile(r"[0-9a-f]{12}")
DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
STEP_FOLDER = re.compile(r"step-(\d{6,})")
LONGEST_NAME, LONGEST_URL = 64, 1024
SHOWN_RUNS = 8


@dataclass(frozen=True)
class Run:
    """What decides a run; its id is the hash of it."""

    dataset: str
    dataset_digest: str
    preset: Preset
    name: str = ""
    base_sha256: str = ""
    """Of built-in base weights (model/weights.py), which later versions of this repository may replace."""

    @property
    def run_id(self) -> str:
        identity = {"dataset_digest": self.dataset_digest, "preset": self.preset.identity(), "name": self.name}
        if self.base_sha256:
            identity["base_sha256"] = self.base_sha256
        return sha256_bytes(canonical_json(identity).encode())[:12]

    @property
    def folder(self) -> Path:
        return home() / "runs" / self.run_id

    @property
    def dataset_dir(self) -> Path:
        """The data set's folder; of one at a URL, this machine's working copy."""
        return dataset_folder(self.dataset)

    @property
    def spool(self) -> Path:
        return self.folder / "metrics.jsonl"

    def latest_checkpoint(self) -> Path | None:
        """Return the complete checkpoint folder with the most steps, None before the first."""
        complete = self.checkpoints()
        return complete[-1] if complete else None

    def checkpoints(self) -> list[Path]:
        """Return the complete checkpoint folders, the one with the most steps last."""
        found = (path.parent for path in self.folder.glob("checkpoints/step-*/trainer.json"))
        return sorted((folder for folder in found if STEP_FOLDER.fullmatch(folder.name)), key=steps_of)

    def finished(self) -> dict[str, Any] | None:
        """Return finished.json of a run that was trained to the end and scored, else None.

        RunError when it is damaged.
        """
        marker = self.folder / "finished.json"
        if not marker.exists():
            return None
        advice = "remove it and run the deployment again, to score the run again."
        record: dict[str, Any] = read_json(marker, advice, error=RunError)
        for key, kind in (("metrics", dict), ("mlflow_url", str)):
            if not isinstance(record.get(key, kind()), kind):
                raise RunError(f"{marker} holds {key} {record[key]!r}: {advice}")
        return record

    def clips(self) -> ClipIndex:
        """Return the index of the run's data set. RunError when that was changed since the run was opened."""
        index = ClipIndex(self.dataset_dir)
        if index.digest != self.dataset_digest:
            raise RunError(
                f"run {self.run_id} was trained on data {self.dataset_digest[:12]} and {self.dataset_dir} is "
                f"{index.digest[:12]} now: restore that data set, or train a new run on this one."
            )
        return index


def steps_of(checkpoint: Path) -> int:
    """Return the optimiser steps of a checkpoint folder."""
    return int(checkpoint.name.removeprefix("step-"))


def printable(value: str) -> str:
    """Return a text as a message may show it: printable ASCII, not longer than a line."""
    text = ascii(value)
    return text if len(text) <= 2 * LONGEST_NAME else f"{text[: 2 * LONGEST_NAME]}...'"


def is_dataset(text: str) -> bool:
    """Tell whether a text can name a data set: a folder in `datasets/`, or a URL."""
    return DATASET_NAME.fullmatch(text) is not None or (len(text) <= LONGEST_URL and is_url(text))


def new_run(dataset: str, preset: Preset, name: str = "") -> Run:
    """Return the run of this configuration on the data set as it is now; nothing is written.

    RunError for a name that cannot be one, or a built-in base that is missing; ShardError when the data set is not
    finished.
    """
    if not is_dataset(dataset):
        raise RunError(
            f"dataset is {printable(dataset)}: give the name of a folder in {home() / 'datasets'}; it has letters, "
            "digits, '.', '_' and '-'. Or give a URL such as s3://bucket/name."
        )
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise RunError(
            f"run_name is {printable(name)}: give at most {LONGEST_NAME} printable characters; a run's folder is named "
            "by its id, not by this."
        )
    try:
        base_sha256 = built_in_digest(preset.transformer.base_model)
    except WeightsError as error:
        raise RunError(f"base_model {error}.") from error
    return Run(dataset, ClipIndex(dataset_folder(dataset)).digest, preset, name, base_sha256)


def create_run(dataset: str, preset: Preset, name: str = "", *, mark_last: bool = True) -> Run:
    """Return the run of this configuration on the data set as it is now; write run.json where it is new.

    `mark_last`: the run is the one that commands without a run id mean. ShardError when the data set is not finished,
    RunError for a name that cannot be one, a run.json that was changed, or a folder that cannot be written.
    """
    run = new_run(dataset, preset, name)
    make_folder(run.folder, RunError)
    if (run.folder / "run.json").exists():
        read_run(run.run_id)
    else:
        record = {"run_id": run.run_id, "dataset": dataset, "dataset_digest": run.dataset_digest,
                  "preset": preset.to_dict(), "name": name, "base_sha256": run.base_sha256}  # fmt: skip
        with atomic_file(run.folder / "run.json") as path:
            path.write_text(json.dumps(record, indent=1))
    if mark_last:
        with atomic_file(home() / "runs" / "last") as path:
            path.write_text(run.run_id)
    return run


def read_run(run_id: str = "") -> Run:
    """Return an existing run; empty: the one opened last. RunError when there is none, or run.json is damaged."""
    runs = home() / "runs"
    if not run_id:
        last = runs / "last"
        if not last.exists():
            raise RunError(f"{runs} holds no run yet: run train-shareverse first.")
        run_id = read_bytes(last, "name a run by its id.", RunError).decode("ascii", "replace").strip()
        if not RUN_ID.fullmatch(run_id):
            raise RunError(f"{last} holds {printable(run_id)}, which is no run's id: name a run by its id.")
    marker = runs / run_id / "run.json" if RUN_ID.fullmatch(run_id) else None
    if marker is None or not marker.exists():
        known = sorted(path.parent.name for path in runs.glob("*/run.json"))
        some = ", ".join(known[:SHOWN_RUNS]) or "none"
        more = f" and {len(known) - SHOWN_RUNS} more" if len(known) > SHOWN_RUNS else ""
        raise RunError(f"there is no run {printable(run_id)} in {runs}: the runs are {some}{more}.")
    return parse_run(marker, run_id)


def parse_run(marker: Path, run_id: str) -> Run:
    """Return the run of a run.json. RunError when the file is damaged or was changed."""
    advice = "restore it, or remove it and run train-shareverse again with the same parameters."
    record = read_json(marker, advice, error=RunError)
    for key, kind in (("dataset", str), ("dataset_digest", str), ("preset", dict), ("name", str)):
        if not isinstance(record.get(key), kind):
            raise RunError(f"{marker} holds {key} {record.get(key)!r}: {advice}")
    base_sha256 = record.get("base_sha256", "")
    try:
        preset = Preset.from_dict(record["preset"])
        run = Run(record["dataset"], record["dataset_digest"], preset, record["name"], str(base_sha256))
        found = run.run_id
    except (PresetError, KeyError, UnicodeError) as error:
        raise RunError(f"{marker} holds no configuration of a run ({one_line(error)}): {advice}") from error
    if found != run_id or not is_dataset(run.dataset):
        raise RunError(f"{marker} was changed (it hashes to {found}): restore it, or start a new run.")
    return run
