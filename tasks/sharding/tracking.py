"""Logs a data set as a run of MLflow's experiment `shareverse-datasets`, found again by its digest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlflow.exceptions import MlflowException

from infra.mlflow_tracking import DATA_EXPERIMENT, RunLog, TrackingError, flatten
from tasks.planning.record import read_plan_record
from tasks.sharding.card import CARD_FOLDER
from tasks.sharding.reader import ClipIndex


def log_dataset(dataset_dir: Path, tags: Mapping[str, str]) -> str:
    """Log the plan's parameters, counts and the data card once; return the run's address.

    TrackingError when MLflow cannot be used; the data set is complete without it.
    """
    record = ClipIndex(dataset_dir).record
    preset = read_plan_record(dataset_dir / "plan.json")["preset"]
    log = RunLog(
        DATA_EXPERIMENT, record["digest"], record["name"], {"mlflow.note.content": run_description(dataset_dir), **tags}
    )
    try:
        if len(log.client.list_artifacts(log.run_id, CARD_FOLDER)) < len(list((dataset_dir / CARD_FOLDER).iterdir())):
            log.params({"plan_preset": preset.pop("name", ""), **flatten(preset)})
            log.dataset(record["name"], record["digest"], dataset_dir.resolve())
            counts = {f"clips.{split}": float(count) for split, count in record["counts"]["split"].items()}
            log.final_metrics({"clips": float(record["clips"]), **counts}, step=0)
            log.artifacts(dataset_dir / "dataset.json", "")
            log.artifacts(dataset_dir / CARD_FOLDER, CARD_FOLDER)
        log.close()
    except (MlflowException, OSError) as error:
        raise TrackingError(f"MLflow did not take the data set {record['name']}: {error}.") from error
    return log.url


def run_description(dataset_dir: Path) -> str:
    """Return the text that MLflow shows on the run's page."""
    return f"Data card: artifacts, {CARD_FOLDER}/README.md. On disk: `{dataset_dir.resolve()}`"
