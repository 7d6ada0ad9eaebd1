"""The Prefect tasks that open a run and train it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.logging import get_run_logger

from infra.prefect_progress import FlowProgress, prefect_tags
from infra.reading import one_line
from model.presets import Preset
from tasks.runs.mlflow_run import UNREACHABLE, open_log
from tasks.runs.outbox import deliver
from tasks.runs.run import Run, create_run, new_run, read_run, steps_of
from tasks.runs.spool import read_rows
from tasks.training.group import train
from tasks.training.preflight import preflight
from tasks.training.tracking import TrainingLog


@task(name="open-run")
def open_run(dataset: str, preset: str, overrides: dict[str, Any], run_name: str, processes: int = 1) -> dict[str, Any]:
    """Find or make the run of this configuration on the data set, and its MLflow run.

    Returns run_id, folder, finished, mlflow_url (empty while MLflow is down), and the metrics of a finished run.
    Before anything is made or costs, one sentence for what cannot work: PresetError for what is no preset or does not
    fit, ShardError without a finished data set, and what `preflight` finds.
    """
    log = get_run_logger()
    run = new_run(dataset, Preset.load(preset).replace(**overrides), run_name)
    if run.finished() is None:
        preflight(run, processes)
    create_run(run.dataset, run.preset, run.name)
    say(log, deliver(run, prefect_tags()))
    opened: dict[str, Any] = {"run_id": run.run_id, "folder": str(run.folder), "finished": False, "mlflow_url": ""}
    finished = run.finished()
    if finished is not None:
        url = finished.get("mlflow_url", "")
        log.info(f"Run {run.run_id} is done already: nothing to train; {url or run.folder}")
        link(url, run)
        return opened | {"finished": True, "mlflow_url": url, "metrics": finished.get("metrics", {})}
    try:
        opened["mlflow_url"] = open_log(run, prefect_tags()).url
        log.info(f"Run {run.run_id} in {run.folder}; MLflow: {opened['mlflow_url']}")
    except UNREACHABLE as error:
        log.warning(f"{error} Run {run.run_id} in {run.folder} is trained all the same; its metrics are sent later.")
    link(opened["mlflow_url"], run)
    return opened


def link(url: str, run: Run) -> None:
    """Leave the MLflow run's address on the flow run's page."""
    if url:
        create_link_artifact(link=url, link_text=f"Run {run.run_id} in MLflow", key="mlflow-run")


@task(name="train-model")
def train_model(run_id: str, latents: str, processes: int) -> str:
    """Train a run to its last step, from its last checkpoint where there is one; return the final checkpoint's folder.

    RunError when a training process fails or the training diverges: then the MLflow run is marked as failed, with
    the reason; the same flow again goes on from the last checkpoint.
    """
    log = get_run_logger()
    run = read_run(run_id)
    tracking = TrainingLog(run, prefect_tags())
    last, total = run.latest_checkpoint(), run.preset.training.train_steps
    if last is not None and steps_of(last) >= total:
        log.info(f"Run {run_id} is trained already, {steps_of(last)} steps: nothing to train.")
        tracking.rows(read_rows(run.spool))  # what MLflow missed when it was down
        say(log, tracking.end())
        return str(last)
    log.info(f"Training {run_id} on {processes} processes, " + (
        f"resumed from step {steps_of(last)} of {total}." if last is not None else f"{total} steps from the beginning."
    ))  # fmt: skip
    try:
        final = train(run, Path(latents), processes, FlowProgress("training", "steps"), tracking.rows)
    except BaseException as error:
        say(log, tracking.end("FAILED", one_line(error)))
        raise
    say(log, tracking.end())  # the evaluation ends the MLflow run
    log.info(f"Run {run_id} is trained: {steps_of(final)} steps, {final}")
    return str(final)


def say(log: Any, sentence: str) -> None:
    if sentence:
        log.warning(sentence)
