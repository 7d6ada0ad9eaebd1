"""`python -m tasks.training.worker RUN_DIR LATENTS_DIR [--rendezvous FILE]`: one rank of a training.

Started by `tasks.training.group`, or by torchrun on several machines. Ends with 0 when the run has all its steps.
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
from infra.locks import locked
from infra.storage import StorageError
from model.build import text_embedding
from model.codec import Codec, CodecError, load_codec
from model.objective import BUCKETS, Loss, loss_by_bucket, noise_schedule, training_loss
from model.presets import PresetError
from tasks.encoding.latents import EncodingError, LatentWindows, place
from tasks.runs.checkpoint_record import check_resumable, remedy
from tasks.runs.errors import RunError
from tasks.runs.run import Run, read_run, steps_of
from tasks.runs.spool import append_row, rewind
from tasks.sharding.reader import ResumableSampler
from tasks.sharding.shards import ShardError
from tasks.training.batches import Pair, collate, draw_pair, positions, seeded
from tasks.training.checkpoint import EMA_FILE, save_checkpoint
from tasks.training.ema import WeightAverage
from tasks.training.engine import Engine, init_distributed, learning_rate_at
from tasks.training.errors import REFUSED, DivergedError
from tasks.training.flops import flops_per_pair, peak_flops
from tasks.training.health import all_finite, check_step, check_validation, check_weights
from tasks.training.validation import validation_loss, validation_pairs, write_sample

ERRORS = (RunError, EncodingError, CodecError, PresetError, ShardError, StorageError, DeepSpeedConfigError)


class Draws:
    """The pairs of each step that a rank takes, read and drawn one step ahead on a thread."""

    def __init__(self, windows: LatentWindows, run: Run, places: list[range]) -> None:
        self.windows, self.preset, self.places = windows, run.preset, places
        self.thread = ThreadPoolExecutor(1)
        self.ahead: tuple[int, Future] | None = None

    def of(self, step: int) -> list[list[Pair]]:
        """Return the pairs of a step, a list a forward pass."""
        known = self.ahead is not None and self.ahead[0] == step
        found = self.ahead[1].result() if self.ahead and known else self.draw(step)
        self.ahead = (step + 1, self.thread.submit(self.draw, step + 1))
        return found

    def draw(self, step: int) -> list[list[Pair]]:
        batch_size, seed = self.preset.training.batch_size, self.preset.training.seed
        sampler = ResumableSampler(len(self.windows), seed, consumed=step * batch_size)
        order = list(itertools.islice(sampler, batch_size))

        def pair(place: int) -> Pair:
            return draw_pair(self.windows[order[place]], self.preset, seeded(seed, step, place))

        return [[pair(place) for place in part] for part in self.places]


class Meter:
    """What happened since the last row: losses, summed, and the last step's gradient norms and learning rate."""

    def __init__(self) -> None:
        self.sums = torch.zeros(1 + BUCKETS, 2)
        self.started, self.steps = time.monotonic(), 0
        self.last_step, self.rate = 0, 0.0
        self.names: list[str] = []
        self.norms: dict[str, float] = {}

    def add(self, step: int, losses: list[Loss], norms: dict[str, float], rate: float) -> None:
        """Take in optimiser step `step` (from 1)."""
        for loss in losses:
            buckets = loss_by_bucket(loss)
            self.names = ["train/loss", *(f"train/loss_{name}" for name in buckets)]
            self.sums[0] += torch.tensor([float(loss.per_pair.sum()), len(loss.per_pair)])
            for number, (total, count) in enumerate(buckets.values(), 1):
                self.sums[number] += torch.tensor([total, float(count)])
        self.last_step, self.norms, self.rate = step, norms, rate
        self.steps += 1

    def losses(self, device: torch.device) -> dict[str, float]:
        """Return the mean losses by name over all ranks; a bucket without a pair is left out."""
        sums = self.sums.to(device)
        torch.distributed.all_reduce(sums)
        return {name: total / count for name, (total, count) in zip(self.names, sums.tolist(), strict=True) if count}


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
        self.average = WeightAverage(self.engine.model, self.training.ema_decay) if self.training.ema_decay else None
        self.codec: Codec = load_codec(self.preset.codec, latents_dir)
        place(self.codec, self.device)
        self.scheduler = noise_schedule(self.preset.objective)
        self.text = text_embedding(self.preset).to(self.device)
        self.latents_key = latents_dir.name
        self.places = positions(self.training.batch_size, self.training.micro_batch_size, self.processes, self.rank)
        self.draws = Draws(LatentWindows(latents_dir, "train", preload=True), run, self.places)
        validation = LatentWindows(latents_dir, "val")
        self.validation = validation_pairs(validation) if self.training.validate_every and len(validation) else []
        self.flops = flops_per_pair(self.engine.model, self.preset)
        self.peak = peak_flops(self.device)

    def train(self) -> None:
        """Train from the last checkpoint, or from the beginning, to the last step.

        DivergedError, on all ranks, for the first step whose loss, gradient or weights are not finite.
        """
        step = self.resume()
        self.meter = Meter()
        try:
            while step < self.training.train_steps:
                self.advance(step)
                step += 1
        except DivergedError as error:
            self.keep_last_rows(error)
            raise

    def advance(self, step: int) -> None:
        """Do optimiser step `step` (from 0) and what is due after it."""
        rate = self.rate_of(step)
        row = self.step(step, rate)
        step += 1
        looks = self.due(step, self.training.validate_every) and bool(self.validation)
        saves = self.due(step, self.training.checkpoint_every)
        try:
            if looks or saves:
                check_weights(step, rate, self.state(), self.device)
            if looks:
                row |= self.look(step, rate)
        finally:
            if row:
                self.append(step, row)
        if saves:
            self.checkpoint(step)

    def append(self, step: int, row: dict[str, Any]) -> None:
        """Add a row to the spool, on rank 0."""
        if self.rank == 0:
            append_row(self.run.spool, {"step": step, "time_s": time.time(), **row})

    def keep_last_rows(self, error: DivergedError) -> None:
        """Write the row of the steps since the last one, which were good, and one that says why there are no more."""
        if self.meter.steps:
            self.append(self.meter.last_step, self.metrics())
        self.append(error.step, {"train/learning_rate": error.rate, "failure": str(error)})
        torch.distributed.barrier()

    def state(self) -> Iterator[torch.Tensor]:
        """Yield all that a checkpoint would hold of this rank."""
        yield from self.engine.state()
        if self.average:
            yield from self.average.means

    def due(self, step: int, every: int) -> bool:
        return bool(every) and (step % every == 0 or step == self.training.train_steps)

    def resume(self) -> int:
        """Load the last checkpoint; return its step, 0 without one. RunError for a damaged one."""
        found = self.run.latest_checkpoint()
        if found is None:
            rewind_once(self.run, 0, self.rank)
            return 0
        check_resumable(found, self.run, self.processes)
        self.engine.load(found / "engine")
        if self.average:
            self.average.load(found / EMA_FILE)
        if not all_finite(self.state(), self.device):
            raise RunError(f"{found} holds weights or optimizer state that are not finite: {remedy(found)}")
        rewind_once(self.run, steps_of(found), self.rank)
        return steps_of(found)

    def rate_of(self, step: int) -> float:
        training = self.training
        return learning_rate_at(
            step, training.learning_rate, training.warmup_steps, training.train_steps, training.lr_schedule
        )

    def step(self, step: int, rate: float) -> dict[str, Any]:
        """Do optimiser step `step` (from 0); return a row of metrics where one is due. DivergedError."""
        self.engine.set_learning_rate(rate)
        losses: list[Loss] = []
        for places, pairs in zip(self.places, self.draws.of(step), strict=True):
            batch = collate(pairs, self.codec, self.device)
            text = self.text.expand(len(pairs), -1, -1)
            loss = training_loss(
                self.engine.deepspeed, self.scheduler, batch.latents, batch.first, batch.raymaps, text,
                batch.timesteps, batch.noise, self.engine.dtype,
            )  # fmt: skip
            self.engine.backward(loss.mean)
            losses.append(loss)
            if places is self.places[-1]:
                squares = check_step(step + 1, rate, losses, self.engine.gradient_squares())
            self.engine.step()
        if self.average:
            self.average.update(step + 1)
        self.meter.add(step + 1, losses, self.engine.named_norms(squares), rate)
        return self.metrics() if self.due(step + 1, self.training.log_every) else {}

    def metrics(self) -> dict[str, Any]:
        """Return a row of what happened since the last one, and begin anew."""
        row: dict[str, Any] = self.meter.losses(self.device)
        seconds = time.monotonic() - self.meter.started
        pairs_per_s = self.meter.steps * self.training.batch_size / seconds
        row |= {f"train/grad_norm{group}": norm for group, norm in self.meter.norms.items()}
        row |= {
            "train/learning_rate": self.meter.rate,
            "train/pairs_per_s": pairs_per_s,
            "train/step_s": seconds / self.meter.steps,
            "train/tflops": pairs_per_s * self.flops / 1e12,
            "train/memory_gb": memory_gb(self.device),
        }
        if self.peak:
            row["train/mfu"] = pairs_per_s * self.flops / (self.peak * self.processes)
        self.meter = Meter()
        return row

    def look(self, step: int, rate: float) -> dict[str, Any]:
        """Return the validation loss and the name of a sample that was written, of the averaged weights if any.

        DivergedError for a loss that is not finite.
        """
        started = time.monotonic()
        self.engine.model.eval()
        common = (self.preset, self.scheduler, self.codec, self.text, self.engine.dtype)
        row: dict[str, Any] = {}
        with self.average.applied() if self.average else torch.no_grad():
            row["val/loss"] = validation_loss(self.engine.deepspeed, self.validation, *common)
            check_validation(step, rate, row["val/loss"])
            if self.rank == 0 or self.engine.stage == 3:
                name = f"samples/step-{step:06d}.png"
                target = self.run.folder / (name if self.rank == 0 else f"logs/unused-{self.rank}.png")
                write_sample(target, self.validation[0][0], self.engine.model, *common)
                row["sample"] = name
        self.engine.model.train()
        self.meter.started += time.monotonic() - started
        return row

    def checkpoint(self, step: int) -> None:
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
        save_checkpoint(self.run, step, self.engine, self.average, record)
        self.meter.started += time.monotonic() - started


def rewind_once(run: Run, step: int, rank: int) -> None:
    """Cut the spool back to the checkpoint on rank 0 while the others wait."""
    if rank == 0:
        rewind(run.spool, step)
    torch.distributed.barrier()


def memory_gb(device: torch.device) -> float:
    """Return this rank's peak memory: the card's, or the process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="One rank of a training.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("latents_dir", type=Path)
    parser.add_argument("--rendezvous", help="a file on this machine through which the ranks find each other")
    given = parser.parse_args(arguments)
    folder = given.run_dir.resolve()
    os.environ["SHAREVERSE_HOME"] = str(folder.parent.parent)
    if not torch.cuda.is_available():
        share = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", max(1, share))))
    rank = int(os.environ.get("RANK", "0"))
    try:
        with locked(folder / "logs" / f"rank{rank}.lock", "", error=RunError, on_wait=lambda: say_waiting(rank)):
            Trainer(read_run(folder.name), given.latents_dir.resolve(), given.rendezvous).train()
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    except ERRORS as error:
        print(error, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(REFUSED)  # the other ranks may wait in a collective: taking leave of them could last for ever
    return 0


def say_waiting(rank: int) -> None:
    print(f"rank {rank} waits for the same rank of an earlier training of this run, which is ending", flush=True)


if __name__ == "__main__":
    sys.exit(main())
