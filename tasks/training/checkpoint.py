"""Checkpoints: `checkpoints/step-NNNNNN/`, complete or not there (trap 30: whole checkpoints only)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from infra.storage import TEMPORARY_PREFIX, publish_dir, sweep_temporary
from model.trainable import ADAPTER_FOLDER, merged, save_adapter
from model.transformer import ShareVerseTransformer3DModel
from tasks.runs.checkpoint_record import RECORD, file_hashes
from tasks.runs.run import Run
from tasks.training.ema import WeightAverage
from tasks.training.engine import Engine

EMA_FILE = "ema.safetensors"


def save_checkpoint(run: Run, step: int, engine: Engine, average: WeightAverage | None, record: dict[str, Any]) -> None:
    """Write a checkpoint; all ranks call it. Older ones go when this one is complete."""
    folder = run.folder / "checkpoints"
    final, temporary = folder / f"step-{step:06d}", folder / f"{TEMPORARY_PREFIX}step-{step:06d}"
    first = torch.distributed.get_rank() == 0
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        sweep_temporary(folder)
        temporary.mkdir()
    torch.distributed.barrier()
    engine.save(temporary / "engine")
    weights = engine.state_dict()
    if first:
        if average:
            weights |= average.state_dict()
            average.save(temporary / EMA_FILE)
        training = run.preset.training
        if training.trainable == "lora":
            save_adapter(weights, run.preset, temporary / ADAPTER_FOLDER)
            weights = merged(weights, training.lora_alpha / training.lora_rank)
        save_model(temporary / "model", engine, weights)
    torch.distributed.barrier()
    if first:
        record = record | {"files": file_hashes(temporary)}
        (temporary / RECORD).write_text(json.dumps(record, indent=1))
        publish_dir(temporary, final)
        remove_old(folder, run.preset.training.keep_checkpoints)
    torch.distributed.barrier()


def save_model(folder: Path, engine: Engine, weights: dict[str, torch.Tensor]) -> None:
    """Write weights in diffusers' layout, to be read by `ShareVerseTransformer3DModel.from_pretrained`."""
    with torch.device("meta"):
        model = ShareVerseTransformer3DModel.from_config(engine.model.config)
    model.load_state_dict(weights, assign=True)
    model.save_pretrained(folder)


def remove_old(folder: Path, keep: int) -> None:
    """Remove all but the latest `keep` checkpoints; trainer.json first, so that a half-removed one does not count."""
    for old in sorted(folder.glob("step-*"))[:-keep]:
        (old / RECORD).unlink(missing_ok=True)
        shutil.rmtree(old)
