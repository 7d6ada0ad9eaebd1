"""What a training step costs: `python benchmarks/training.py [--preset demo]`.

Seconds (median) of the forward and backward pass of one micro-batch, its model FLOP/s, and the share of what the same
device reaches in the same run multiplying square matrices in the same precision: the limit that no training can pass.
Also the optimiser's step and the average of the weights. On a GPU where there is one, with the peak of its memory; else
on one thread of the CPU.

`--preset paper --from-scratch --passes-only` needs no weights of CogVideoX (it draws as many at random), 80 GB of GPU
memory, and no optimiser, whose state fits on no single card.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from infra.deepspeed_config import use_bf16
from model.build import build_transformer, text_embedding, transformer_from_scratch
from model.objective import Batch, noise_schedule, training_loss
from model.presets import Preset
from model.raymap import RAYMAP_CHANNELS
from model.trainable import choose_trained
from tasks.training.ema import WeightAverage
from tasks.training.flops import AGENTS, flops_per_pair

MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
"""Rows of the square matrices: enough to reach the device's peak."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    """Wait for the GPU's work that was launched."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def median_s(job: Callable[[], object], times: int) -> float:
    """Return the median seconds of a job, after two runs that do not count."""
    times_s = []
    for number in range(times + 2):
        synchronize()
        started = time.perf_counter()
        job()
        synchronize()
        times_s.append(time.perf_counter() - started)
        if number == 1:
            times_s.clear()
    return statistics.median(times_s)


def matmul_flops(dtype: torch.dtype, times: int) -> float:
    """Return the FLOP/s of a product of two square matrices."""
    side = MATRIX_SIDE[DEVICE.type]
    a, b = (torch.randn(side, side, device=DEVICE).to(dtype) for _ in range(2))
    return 2 * side**3 / median_s(lambda: a @ b, 5 * times)


def read_options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--preset", default="demo")
    options.add_argument(
        "--from-scratch", action="store_true", help="random weights instead of the preset's base model"
    )
    options.add_argument("--passes-only", action="store_true", help="without optimiser and average")
    options.add_argument("--repeats", type=int, default=10)
    return options.parse_args()


def main() -> None:
    options = read_options()
    if DEVICE.type == "cpu":
        torch.set_num_threads(1)
    preset = Preset.load(options.preset)
    dtype = torch.bfloat16 if use_bf16(preset.training.precision) else torch.float32
    with DEVICE:
        model = transformer_from_scratch(preset) if options.from_scratch else build_transformer(preset)
    choose_trained(model, preset)
    model.to(dtype)
    if preset.training.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    pairs = preset.training.micro_batch_size
    frames, channels, height, width = preset.latent_shape
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(pairs, AGENTS, *shape, generator=generator).to(DEVICE)

    latents = random(frames, channels, height, width)
    batch = Batch(
        latents=latents,
        image_latents=latents[:, :, :1],
        noise=random(frames, channels, height, width),
        raymaps=random(frames, RAYMAP_CHANNELS, height, width),
        timesteps=torch.full((pairs,), 900, device=DEVICE),
    )
    stand_in = preset.replace(base_model="", trainable="all") if options.from_scratch else preset
    text, scheduler = text_embedding(stand_in).to(DEVICE), noise_schedule(preset.objective)

    def step() -> None:
        training_loss(model, scheduler, batch, text, dtype).mean.backward()

    limit, seconds = matmul_flops(dtype, options.repeats), median_s(step, options.repeats)
    reached = pairs * flops_per_pair(model, preset) / seconds
    million = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    where = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "one thread"
    print(f"preset {preset.name}: {million:.1f} M parameters, {pairs} pairs a pass, {dtype}, {where}")
    print(f"forward and backward  {seconds:6.3f} s, {reached / 1e9:7.0f} GFLOP/s")
    print(f"square matrices       {'':8} {limit / 1e9:7.0f} GFLOP/s: the step reaches {reached / limit:.0%} of it")
    if DEVICE.type == "cuda":
        print(f"peak memory           {torch.cuda.max_memory_allocated() / 1e9:6.1f} GB")
    if not options.passes_only:
        optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.0)
        average = WeightAverage(model, 0.99)
        print(f"AdamW                 {median_s(optimizer.step, options.repeats):6.3f} s (all that is trained)")
        print(f"average of weights    {median_s(lambda: average.update(1), options.repeats):6.3f} s")


if __name__ == "__main__":
    main()
