"""The base: one agent's four views, recorded and learned from scratch, that fine-tunings start from (docs/BASE.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.collect_dataset import DatasetName, Servers, collect
from infra.prefect_worker import end_with_worker
from tasks.encoding.task import encode_clips
from tasks.training.parameters import LearningRate, Overrides, Seed, TrainSteps, changes
from tasks.training.task import open_run, train_model


@flow(name="train-base", validate_parameters=True, on_running=[end_with_worker])
def train_base(
    dataset: DatasetName = "base",
    plan_preset: str = "base",
    simulator: Literal["embedded", "carla"] = "embedded",
    carla_executable: str = "",
    servers: Servers = 2,
    preset: str = "base",
    overrides: Overrides | None = None,
    run_name: Annotated[str, Field(max_length=64)] = "",
    processes: Annotated[int, Field(ge=1, le=1024)] = 1,
    seed: Seed | None = None,
    learning_rate: LearningRate | None = None,
    train_steps: TrainSteps | None = None,
) -> dict:
    """Record `dataset` by the plan preset and train the preset's model on it, without cross-agent attention.

    What is there is kept: ended at any point, the same flow goes on from the last recording or checkpoint. The learning
    rate is constant and weights are averaged, so that every checkpoint is a base: `shareverse export-base RUN DIR`
    makes it one, while the training goes on. Returns the run's id and folder and the last checkpoint's.
    """
    simulator_options = {"kind": simulator, "executable": carla_executable, "options": (), "maps_dir": ""}
    changed = changes(overrides, seed=seed, learning_rate=learning_rate, train_steps=train_steps)
    collect(dataset, plan_preset, {}, simulator_options, servers, samples_per_shard=32)
    run = open_run(dataset, preset, changed, run_name, processes)
    latents = encode_clips(dataset, run["run_id"])
    checkpoint = train_model(run["run_id"], latents, processes)
    return {"run_id": run["run_id"], "folder": run["folder"], "checkpoint": checkpoint}
