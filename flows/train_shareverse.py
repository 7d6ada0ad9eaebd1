"""Training: cache latents, train with DeepSpeed, score on held-out towns (paper, sections 4 and 5)."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.collect_dataset import DatasetPlace
from infra.prefect_worker import end_with_worker
from tasks.encoding.task import encode_clips
from tasks.evaluation.task import score_run
from tasks.training.parameters import CrossAgent, LearningRate, Overrides, Seed, TrainSteps, changes
from tasks.training.task import open_run, train_model


@flow(name="train-shareverse", validate_parameters=True, on_running=[end_with_worker])
def train_shareverse(
    dataset: DatasetPlace = "demo",
    preset: str = "demo",
    overrides: Overrides | None = None,
    run_name: Annotated[str, Field(max_length=64)] = "",
    processes: Annotated[int, Field(ge=1, le=1024)] = 2,
    seed: Seed | None = None,
    learning_rate: LearningRate | None = None,
    train_steps: TrainSteps | None = None,
    cross_agent: CrossAgent | None = None,
) -> dict:
    """Train the preset's model with the changes given here, then score it.

    The run's id is a hash of its configuration and the data's digest. With equal parameters the run continues where it
    stopped, or is reported as finished; any change, or a `run_name`, makes a new run.

    `overrides`: any fields of the preset (model/presets) by their bare names, {"ema_decay": 0.99, "batch_size": 8};
    those that are changed most often have parameters of their own. Returns the run's id, folder, MLflow address and
    figures.
    """
    changed = changes(
        overrides, seed=seed, learning_rate=learning_rate, train_steps=train_steps, cross_agent=cross_agent
    )
    run = open_run(dataset, preset, changed, run_name, processes)
    if run["finished"]:
        return run
    latents = encode_clips(dataset, run["run_id"])
    train_model(run["run_id"], latents, processes)
    return score_run(dataset, run["run_id"])
