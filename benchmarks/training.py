"""What a training step costs: `python benchmarks/training.py [--preset demo]`.

Seconds (median) of forward and backward pass of a process's part of the demo's batch on one thread, its model FLOP/s,
and the share of what the same thread reaches in the same run multiplying square matrices in the same precision: the
limit that no training can pass. Also the optimiser's step and the average of the weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from infra.deepspeed_config import use_bf16
from model.build import build_transformer, text_embedding
from model.objective import noise_schedule, training_loss
from model.presets import Preset
from model.raymap import CHANNELS
from tasks.training.ema import WeightAverage
from tasks.training.flops import AGENTS, flops_per_pair

SIDE = 1024


def median_s(job: Callable[[], object], times: int) -> float:
    """Median seconds of a job, after two runs that do not count."""
    taken = []
    for number in range(times + 2):
        begun = time.perf_counter()
        job()
        taken.append(time.perf_counter() - begun)
        if number == 1:
            taken.clear()
    return statistics.median(taken)


def peak(dtype: torch.dtype, times: int) -> float:
    """Return the FLOP/s of a product of two square matrices."""
    a, b = torch.randn(SIDE, SIDE).to(dtype), torch.randn(SIDE, SIDE).to(dtype)
    return 2 * SIDE**3 / median_s(lambda: a @ b, 5 * times)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--preset", default="demo")
    options.add_argument("--processes", type=int, default=2, help="whose part of the batch one of them computes")
    options.add_argument("--repeats", type=int, default=10)
    given = options.parse_args()
    torch.set_num_threads(1)
    preset = Preset.load(given.preset)
    dtype = torch.bfloat16 if use_bf16(preset.training.precision) else torch.float32
    model = build_transformer(preset).to(dtype)
    pairs = preset.training.batch_size // given.processes
    frames, channels, height, width = preset.latent_shape
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(pairs, AGENTS, *shape, generator=generator)

    latents, noise = random(frames, channels, height, width), random(frames, channels, height, width)
    rays, text = random(frames, CHANNELS, height, width), text_embedding(preset).expand(pairs, -1, -1)
    scheduler, timesteps = noise_schedule(preset.objective), torch.full((pairs,), 900)

    def step() -> None:
        loss = training_loss(model, scheduler, latents, latents[:, :, :1], rays, text, timesteps, noise, dtype)
        loss.mean.backward()

    limit, seconds = peak(dtype, given.repeats), median_s(step, given.repeats)
    reached = pairs * flops_per_pair(model, preset) / seconds
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    average = WeightAverage(model, 0.99)
    million = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"preset {preset.name}: {million:.1f} M parameters, {pairs} pairs a process, {dtype}, one thread")
    print(f"forward and backward  {seconds:6.3f} s, {reached / 1e9:5.0f} GFLOP/s")
    print(f"square matrices       {'':8} {limit / 1e9:5.0f} GFLOP/s: the step reaches {reached / limit:.0%} of it")
    print(f"AdamW                 {median_s(optimizer.step, given.repeats):6.3f} s (all parameters)")
    print(f"average of weights    {median_s(lambda: average.update(1), given.repeats):6.3f} s")


if __name__ == "__main__":
    main()
