"""Training: cache latents, train with DeepSpeed, score on held-out towns (paper, sections 4 and 5)."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.collect_dataset import Name
from tasks.encoding.task import encode_clips
from tasks.evaluation.task import score_run
from tasks.training.task import open_run, train_model

Positive = Annotated[int, Field(ge=1)]


@flow(name="train-shareverse", validate_parameters=True)
def train_shareverse(
    dataset: Name = "demo",
    preset: str = "demo",
    run_name: Annotated[str, Field(max_length=64)] = "",
    processes: Positive = 2,
    seed: Annotated[int, Field(ge=0)] | None = None,
    learning_rate: Annotated[float, Field(gt=0)] | None = None,
    train_steps: Positive | None = None,
    batch_size: Positive | None = None,
    num_layers: Positive | None = None,
    sampling_steps: Positive | None = None,
    views: Literal["four", "front"] | None = None,
    camera: Literal["raymap", "raw"] | None = None,
    cross_agent: Literal["on", "within", "off"] | None = None,
    cross_agent_mode: Literal["attention", "block"] | None = None,
    cross_rope: Literal["doubled", "shared"] | None = None,
    base_model: str | None = None,
    codec_path: str | None = None,
    text_embedding: str | None = None,
) -> dict:
    """Train the preset's model with what is given here changed, then score it. The run's id is the hash of its
    configuration and the data's digest: the same again goes on where it stopped, or says that it is done; any change,
    or a `run_name`, makes a new run.

    Returns the run's id, folder, MLflow address and figures.
    """
    given = {
        "seed": seed,
        "learning_rate": learning_rate,
        "train_steps": train_steps,
        "batch_size": batch_size,
        "num_layers": num_layers,
        "sampling_steps": sampling_steps,
        "views": views,
        "camera": camera,
        "cross_agent": cross_agent,
        "cross_agent_mode": cross_agent_mode,
        "cross_rope": cross_rope,
        "base_model": base_model,
        "codec_path": codec_path,
        "text_embedding": text_embedding,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    run = open_run(dataset, preset, overrides, run_name, processes)
    if run["finished"]:
        return run
    latents = encode_clips(dataset, run["run_id"])
    train_model(run["run_id"], latents, processes)
    return score_run(dataset, run["run_id"])
