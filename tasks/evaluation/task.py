"""Prefect's view of scoring."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from infra.prefect_progress import FlowProgress
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.report.write import folder_of, score_checkpoint
from tasks.runs.run import read_run


@task(name="score run", retries=0)
def score_run(dataset: str, run_id: str = "", split: str = "test", without_run_id: str = "") -> dict[str, Any]:
    """Score the last checkpoint of a run (empty: the run opened last) on a held-out split.

    `without_run_id`: a run whose agents exchange nothing, scored and shown beside it. Returns the run's id, folder,
    MLflow address ("" while MLflow is down), figures and verdict. EvaluationError for a run of another data set.
    """
    run = read_run(run_id)
    if run.dataset != dataset:
        raise EvaluationError(
            f"run {run.run_id} was trained on data set {run.dataset!r}, not {dataset!r}: give that, or another run_id."
        )
    without, log = read_run(without_run_id) if without_run_id else None, get_run_logger()
    report = score_checkpoint(run, split, FlowProgress("evaluation", "windows"), without=without, on_unsent=log.warning)
    for sentence in report.verdict:
        log.info(sentence)
    return {
        "run_id": run.run_id,
        "folder": str(run.folder),
        "evaluation": str(folder_of(run, split)),
        "mlflow_url": report.mlflow_url or (run.finished() or {}).get("mlflow_url", ""),
        "metrics": report.metrics,
        "missing": report.missing,
        "verdict": report.verdict,
    }
