"""`python -m tests.tasks.training.engine_steps RENDEZVOUS FOLDER CHANGES_JSON`: one of two ranks, which train preset
`tiny` four steps with each of some changes, and again from what was saved after the second; rank 0 prints the outcome.

Everything is compared with the first of the changes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from model.build import text_embedding
from model.objective import noise_schedule, training_loss
from model.presets import Preset
from tasks.training.engine import Engine, init_distributed
from tasks.training.health import all_finite, check_step
from tests.tasks.training.peak_of_step import random_batch

CPU = torch.device("cpu")
STEPS, PASSES, SAVED_AFTER = 4, 2, 2
LARGER = {"num_attention_heads": 4, "batch_size": 4, "learning_rate": 1e-3}
"""Layers of more than the 4,096 weights below which nothing has 8 bits; two passes a step on each of two ranks."""
Weights = dict[str, torch.Tensor]


def train(engine: Engine, rank: int, first_step: int, folder: Path | None) -> list[list[float]]:
    """Take the steps from `first_step` on; return loss and gradient norms of each, saving in between to a folder."""
    preset, rows = engine.preset, []
    text, scheduler = text_embedding(preset), noise_schedule(preset.objective)
    for step in range(first_step, STEPS):
        losses = []
        for part in range(PASSES):
            torch.manual_seed(100 * step + 10 * part + rank)
            loss = training_loss(engine.deepspeed, scheduler, random_batch(preset), text, engine.dtype)
            engine.backward(loss.mean)
            losses.append(loss)
            if part == PASSES - 1:
                squares = check_step(step, 0.0, losses, engine.gradient_squares())
            engine.step()
        rows.append([float(losses[-1].mean), *engine.named_norms(squares).values()])
        if folder is not None and step + 1 == SAVED_AFTER:
            engine.save(folder)
    assert all_finite(engine.state(), CPU)
    return rows


def weights_of(engine: Engine) -> Weights:
    return {name: value.clone() for name, value in engine.model.state_dict().items()}


def distance(one: Weights, other: Weights) -> float:
    """Return the root mean square of the differences."""
    return float(torch.cat([(one[name] - other[name]).flatten() for name in one]).square().mean().sqrt())


def outcome(changes: dict[str, Any], rank: int, folder: Path) -> tuple[dict[str, Any], Weights, Weights]:
    """Return what a training and its continuation come to, and the weights before and after it."""
    preset = Preset.load("tiny").replace(**LARGER | changes)
    engine = Engine(preset, 2, CPU)
    start = weights_of(engine)
    rows, end = train(engine, rank, 0, folder), weights_of(engine)
    again = Engine(preset, 2, CPU)
    again.load(folder)
    resumed = train(again, rank, SAVED_AFTER, None)
    same = resumed == rows[SAVED_AFTER:] and distance(weights_of(again), end) == 0
    return {"rows": rows, "resumes": same}, start, end


def main(rendezvous: str, folder: str, all_changes: str) -> None:
    rank = int(os.environ["RANK"])
    init_distributed(CPU, rendezvous, rank, 2)
    found, reference = [], None
    for number, changes in enumerate(json.loads(all_changes)):
        row, start, end = outcome(changes, rank, Path(folder) / str(number))
        reference = end if reference is None else reference
        found.append(row | {"moved": distance(end, start), "apart": distance(end, reference)})
    if rank == 0:
        print(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
