"""Evaluation: score an existing checkpoint again on held-out towns (paper, section 5)."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.collect_dataset import DatasetPlace
from infra.prefect_worker import end_with_worker
from tasks.evaluation.task import score_run

RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]*$", max_length=64)]


@flow(name="evaluate-shareverse", validate_parameters=True, on_running=[end_with_worker])
def evaluate_shareverse(
    dataset: DatasetPlace = "demo",
    run_id: RunId = "",
    split: Literal["val", "test"] = "test",
    without_run_id: RunId = "",
) -> dict:
    """Score the latest checkpoint of `run_id` (empty: the run trained last) on the held-out towns of `split`.

    `without_run_id`: a run trained with `cross_agent` within or off, which is scored and shown beside it.
    """
    return score_run(dataset, run_id, split, without_run_id)
