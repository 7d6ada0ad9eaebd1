"""`python -m tasks.training.worker RUN_DIR LATENTS_DIR [--rendezvous FILE]`: one rank of a training run.

Started by `tasks.training.group`, or by torchrun on several machines. Exits with 0 when all steps are done.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from infra.deepspeed_config import DeepSpeedConfigError
from infra.locks import hold_lock
from infra.storage import StorageError
from model.build import text_embedding
from model.codec import Codec, CodecError, load_codec
from model.objective import BUCKET_NAMES, Loss, loss_by_bucket, noise_schedule, training_loss
from model.presets import PresetError
from tasks.encoding.latents import EncodingError, LatentWindows, place
from tasks.runs.checkpoint_record import check_resumable, repair_advice
from tasks.runs.errors import RunError
from tasks.runs.run import Run, read_run, steps_of
from tasks.runs.spool import append_row, rewind
from tasks.sharding.reader import ResumableSampler
from tasks.sharding.shards import ShardError
from tasks.training.batches import Pair, batch_positions, collate, draw_training_pair, seeded_generator
from tasks.training.checkpoint import EMA_FILE, save_checkpoint
from tasks.training.ema import WeightAverage
from tasks.training.engine import Engine, init_distributed, learning_rate_at
from tasks.training.errors import REFUSED, DivergedError
from tasks.training.flops import flops_per_pair, peak_flops
from tasks.training.health import all_finite, check_step, check_validation, check_weights
from tasks.training.validation import Validation, validation_windows

ERRORS = (RunError, EncodingError, CodecError, PresetError, ShardError, StorageError, DeepSpeedConfigError)


class PairLoader:
    """Reads and draws the pairs that a rank takes in each step, one step ahead on a thread."""

    def __init__(self, windows: LatentWindows, run: Run, micro_batches: list[range]) -> None:
        """`micro_batches`: the positions in the global batch that this rank takes, one range per forward pass."""
        self.windows, self.preset, self.micro_batches = windows, run.preset, micro_batches
        self.thread = ThreadPoolExecutor(1)
        self.prefetched: tuple[int, Future] | None = None

    def pairs_of(self, step: int) -> list[list[Pair]]:
        """Return the pairs of optimiser step `step` (from 0), one list per forward pass."""
        if self.prefetched is not None and self.prefetched[0] == step:
            pairs = self.prefetched[1].result()
        else:
            pairs = self.draw(step)
        self.prefetched = (step + 1, self.thread.submit(self.draw, step + 1))
        return pairs

    def draw(self, step: int) -> list[list[Pair]]:
        batch_size, seed = self.preset.training.batch_size, self.preset.training.seed
        sampler = ResumableSampler(len(self.windows), seed, consumed=step * batch_size)
        window_indices = list(itertools.islice(sampler, batch_size))

        def pair_at(position: int) -> Pair:
            generator = seeded_generator(seed, step, position)
            return draw_training_pair(self.windows[window_indices[position]], self.preset, generator)

        return [[pair_at(position) for position in positions] for positions in self.micro_batches]


class Meter:
    """Accumulates what one row of metrics reports: losses, gradient norms, learning rate and time."""

    def __init__(self) -> None:
        self.bucket_sums: list[torch.Tensor] = []
        """Per forward pass the sums of losses and numbers of pairs, per bucket of timesteps."""
        self.started, self.steps = time.monotonic(), 0
        self.last_step, self.learning_rate = 0, 0.0
        self.gradient_norms: dict[str, float] = {}
        """Of the last step, by group of parameters."""

    def add(self, step: int, losses: list[Loss], gradient_norms: dict[str, float], learning_rate: float) -> None:
        """Add optimiser step `step` (from 1)."""
        self.bucket_sums += [loss_by_bucket(loss) for loss in losses]
        self.last_step, self.gradient_norms, self.learning_rate = step, gradient_norms, learning_rate
        self.steps += 1

    def mean_losses(self, device: torch.device) -> dict[str, float]:
        """Return the mean losses over all ranks by name; a bucket without pairs is left out."""
        sums = torch.stack(self.bucket_sums).sum(0).to(device)
        torch.distributed.all_reduce(sums)
        names = ["train/loss", *(f"train/loss_{name}" for name in BUCKET_NAMES)]
        named_sums = zip(names, torch.cat([sums.sum(0, keepdim=True), sums]).tolist(), strict=True)
        return {name: total / count for name, (total, count) in named_sums if count}


class Trainer:
    """One rank of a run."""

    def __init__(self, run: Run, latents_dir: Path, rendezvous: str | None) -> None:
        self.run, self.preset, self.training = run, run.preset, run.preset.training
        self.rank, self.processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(self.device)
        init_distributed(self.device, rendezvous, self.rank, self.processes)
        self.engine = Engine(self.preset, self.processes, self.device)
        self.ema = WeightAverage(self.engine.model, self.training.ema_decay) if self.training.ema_decay else None
        self.codec: Codec = load_codec(self.preset.codec, latents_dir)
        place(self.codec, self.device)
        self.scheduler = noise_schedule(self.preset.objective)
        self.text = text_embedding(self.preset).to(self.device)
        self.latents_key = latents_dir.name
        self.micro_batches = batch_positions(
            self.training.batch_size, self.training.micro_batch_size, self.processes, self.rank
        )
        self.loader = PairLoader(LatentWindows(latents_dir, "train", preload=True), run, self.micro_batches)
        val_windows = LatentWindows(latents_dir, "val")
        self.validation = Validation(
            validation_windows(val_windows) if self.training.validate_every else [],
            self.preset,
            self.scheduler,
            self.codec,
            self.text,
            self.engine.dtype,
        )
        self.flops_per_pair = flops_per_pair(self.engine.model, self.preset)
        self.peak_flops = peak_flops(self.device)

    def train(self) -> None:
        """Train from the last checkpoint, or from the beginning, to the last step.

        DivergedError, on all ranks, at the first step whose loss, gradient or weights are not finite.
        """
        step = self.resume()
        self.meter = Meter()
        try:
            while step < self.training.train_steps:
                self.advance(step)
                step += 1
        except DivergedError as error:
            self.write_last_rows(error)
            raise

    def advance(self, step: int) -> None:
        """Take optimiser step `step` (from 0), then log, validate and save what is due."""
        learning_rate = self.learning_rate_of(step)
        row = self.take_step(step, learning_rate)
        step += 1
        validates = self.is_due(step, self.training.validate_every) and bool(self.validation.windows)
        saves = self.is_due(step, self.training.checkpoint_every)
        try:
            if validates or saves:
                check_weights(step, learning_rate, self.state_tensors(), self.device)
            if validates:
                row |= self.validate(step, learning_rate)
        finally:
            if row:
                self.write_row(step, row)
        if saves:
            self.save_checkpoint(step)

    def write_row(self, step: int, row: dict[str, Any]) -> None:
        """Append a row of metrics to the spool, on rank 0."""
        if self.rank == 0:
            append_row(self.run.spool, {"step": step, "time_s": time.time(), **row})

    def write_last_rows(self, error: DivergedError) -> None:
        """Write a row for the good steps since the last one, then a row that says why the training ends."""
        if self.meter.steps:
            self.write_row(self.meter.last_step, self.take_metrics())
        self.write_row(error.step, {"train/learning_rate": error.learning_rate, "failure": str(error)})
        torch.distributed.barrier()

    def state_tensors(self) -> Iterator[torch.Tensor]:
        """Yield every tensor of this rank that a checkpoint would hold."""
        yield from self.engine.state()
        if self.ema:
            yield from self.ema.means

    def is_due(self, step: int, every: int) -> bool:
        """Tell whether what happens every so many steps happens after step `step` (from 1); 0 is never."""
        return bool(every) and (step % every == 0 or step == self.training.train_steps)

    def resume(self) -> int:
        """Load the last checkpoint; return its step, 0 without one. RunError for a damaged checkpoint."""
        checkpoint = self.run.latest_checkpoint()
        if checkpoint is None:
            rewind_spool(self.run, 0, self.rank)
            return 0
        check_resumable(checkpoint, self.run, self.processes)
        self.engine.load(checkpoint / "engine")
        if self.ema:
            self.ema.load(checkpoint / EMA_FILE)
        if not all_finite(self.state_tensors(), self.device):
            raise RunError(
                f"{checkpoint} holds weights or optimizer state that are not finite: {repair_advice(checkpoint)}"
            )
        rewind_spool(self.run, steps_of(checkpoint), self.rank)
        return steps_of(checkpoint)

    def learning_rate_of(self, step: int) -> float:
        training = self.training
        return learning_rate_at(
            step, training.learning_rate, training.warmup_steps, training.train_steps, training.lr_schedule
        )

    def take_step(self, step: int, learning_rate: float) -> dict[str, Any]:
        """Take optimiser step `step` (from 0); return a row of metrics if one is due, else an empty one.

        DivergedError for a loss or gradient that is not finite; the weights are unchanged then.
        """
        self.engine.set_learning_rate(learning_rate)
        losses: list[Loss] = []
        passes = self.loader.pairs_of(step)
        for index, pairs in enumerate(passes):
            batch = collate(pairs, self.codec, self.device, self.preset)
            loss = training_loss(self.engine.deepspeed, self.scheduler, batch, self.text, self.engine.dtype)
            self.engine.backward(loss.mean)
            losses.append(loss)
            if index == len(passes) - 1:  # DeepSpeed has the whole gradient now, and `step` would apply it
                squares = check_step(step + 1, learning_rate, losses, self.engine.gradient_squares())
            self.engine.step()
        if self.ema:
            self.ema.update(step + 1)
        self.meter.add(step + 1, losses, self.engine.named_norms(squares), learning_rate)
        return self.take_metrics() if self.is_due(step + 1, self.training.log_every) else {}

    def take_metrics(self) -> dict[str, Any]:
        """Return the row of metrics since the last one, and start the next."""
        row: dict[str, Any] = self.meter.mean_losses(self.device)
        seconds = time.monotonic() - self.meter.started
        pairs_per_s = self.meter.steps * self.training.batch_size / seconds
        flops_per_s = pairs_per_s * self.flops_per_pair
        row |= {f"train/grad_norm{group}": norm for group, norm in self.meter.gradient_norms.items()}
        row |= {
            "train/learning_rate": self.meter.learning_rate,
            "train/pairs_per_s": pairs_per_s,
            "train/step_s": seconds / self.meter.steps,
            "train/tflops": flops_per_s / 1e12,
            "train/memory_gb": peak_memory_gb(self.device),
        }
        if self.peak_flops:
            row["train/mfu"] = flops_per_s / (self.peak_flops * self.processes)
        self.meter = Meter()
        return row

    def validate(self, step: int, learning_rate: float) -> dict[str, Any]:
        """Return the validation loss and the name of a sample that was written, of the averaged weights if any.

        DivergedError for a loss that is not finite.
        """
        started = time.monotonic()
        self.engine.model.eval()
        row: dict[str, Any] = {}
        with self.ema.applied() if self.ema else torch.no_grad():
            row["val/loss"] = self.validation.loss(self.engine.deepspeed)
            check_validation(step, learning_rate, row["val/loss"])
            if self.rank == 0 or self.engine.stage == 3:  # stage 3 gathers weights: all ranks must generate
                name = f"samples/step-{step:06d}.png"
                target = self.run.folder / (name if self.rank == 0 else f"logs/unused-{self.rank}.png")
                self.validation.write_sample(target, self.engine.model)
                row["sample"] = name
        self.engine.model.train()
        self.meter.started += time.monotonic() - started
        return row

    def save_checkpoint(self, step: int) -> None:
        started = time.monotonic()
        record = {
            "run_id": self.run.run_id,
            "step": step,
            "samples_consumed": step * self.training.batch_size,
            "seed": self.training.seed,
            "randomness": "each pair's generator is seeded by (seed, step, position in the batch)",
            "processes": self.processes,
            "dataset_digest": self.run.dataset_digest,
            "latents_key": self.latents_key,
            "ema_decay": self.training.ema_decay,
            "preset": self.preset.to_dict(),
        }
        save_checkpoint(self.run, step, self.engine, self.ema, record)
        self.meter.started += time.monotonic() - started


def rewind_spool(run: Run, step: int, rank: int) -> None:
    """Cut the spool of metrics back to the checkpoint's step, on rank 0 while the other ranks wait."""
    if rank == 0:
        rewind(run.spool, step)
    torch.distributed.barrier()


def peak_memory_gb(device: torch.device) -> float:
    """Return this rank's peak memory: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="One rank of a training run.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("latents_dir", type=Path)
    parser.add_argument("--rendezvous", help="a file on this machine through which the ranks find each other")
    options = parser.parse_args(arguments)
    run_dir = options.run_dir.resolve()
    os.environ["SHAREVERSE_HOME"] = str(run_dir.parent.parent)
    if not torch.cuda.is_available():
        threads = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", max(1, threads))))
    rank = int(os.environ.get("RANK", "0"))
    lock = run_dir / "logs" / f"rank{rank}.lock"
    try:
        with hold_lock(lock, "", error=RunError, on_wait=lambda: report_waiting(rank)):
            Trainer(read_run(run_dir.name), options.latents_dir.resolve(), options.rendezvous).train()
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    except ERRORS as error:
        print(error, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(REFUSED)  # other ranks may be blocked in a collective, and an orderly exit would wait for them
    return 0


def report_waiting(rank: int) -> None:
    print(f"rank {rank} waits for the same rank of an earlier training of this run, which is ending", flush=True)


if __name__ == "__main__":
    sys.exit(main())
