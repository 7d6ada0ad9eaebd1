"""`python -m tests.tasks.training.peak_of_step PRESET_JSON RENDEZVOUS`: print the most bytes that torch's allocator
holds while an engine is built and takes two steps, in this process alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from model.build import text_embedding
from model.objective import Batch, noise_schedule, training_loss
from model.presets import Preset
from tasks.training.ema import WeightAverage
from tasks.training.engine import Engine, init_distributed
from tasks.training.live_memory import empty_batch


def peak_bytes(job: Callable[[], object]) -> int:
    """Return the most that torch's allocator held during a job, beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        job()
    held = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def random_batch(preset: Preset) -> Batch:
    """Return a micro-batch of noise."""
    batch = empty_batch(preset)
    for tensor in (batch.latents, batch.image_latents, batch.raymaps, batch.noise):
        tensor.normal_()
    return batch


def train(preset: Preset) -> None:
    """Take two steps."""
    engine = Engine(preset, 1, torch.device("cpu"))
    average = WeightAverage(engine.model, preset.training.ema_decay)
    text, scheduler = text_embedding(preset), noise_schedule(preset.objective)
    for step in (1, 2):
        loss = training_loss(engine.deepspeed, scheduler, random_batch(preset), text, engine.dtype)
        engine.backward(loss.mean)
        engine.gradient_squares()
        engine.step()
        average.update(step)


def main(preset: str, rendezvous: str) -> None:
    init_distributed(torch.device("cpu"), rendezvous, 0, 1)
    print(peak_bytes(lambda: train(Preset.from_dict(json.loads(preset)))))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
