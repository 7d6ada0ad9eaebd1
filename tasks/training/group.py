"""The process group of a training: started, watched and ended by its parent; it ends when the parent does."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from infra.deepspeed_config import accumulation_steps
from infra.locks import hold_lock
from infra.process_guard import GuardedProcess
from infra.storage import OnProgress, no_progress, sweep_temporary
from tasks.runs.checkpoint_record import check_files, check_resumable
from tasks.runs.errors import RunError
from tasks.runs.run import Run, steps_of
from tasks.runs.spool import SpoolTail, rewind
from tasks.training.errors import REFUSED

OnRows = Callable[[list[dict[str, Any]]], None]
POLL_S = 0.5
GRACE_S = 2.0
"""For a rank whose end made another fail, to end too."""


def no_rows(rows: list[dict[str, Any]]) -> None:
    """Report metrics to nobody."""


def train(
    run: Run,
    latents_dir: Path,
    processes: int = 1,
    on_progress: OnProgress = no_progress,
    on_rows: OnRows = no_rows,
    *,
    threads: int = 0,
) -> Path:
    """Train a run from its last checkpoint to its last step; return the final checkpoint.

    Rows of the metric spool go to `on_rows`, those of an interrupted earlier training again. RunError when a
    process dies (with its log's last line), the training diverges, another process trains the run, or it cannot go on
    from its checkpoint; DeepSpeedConfigError when the batch does not divide. `threads` of each process on a CPU, 0: the
    cores shared out.
    """
    training = run.preset.training
    accumulation_steps(training.batch_size, training.micro_batch_size, processes)
    check_stage(run)
    busy = (
        f"run {run.run_id} is being trained by another process: wait until it ends, or give a run_name for a new run."
    )
    with hold_lock(run.folder / "training.lock", busy, error=RunError):
        return train_alone(run, latents_dir, processes, on_progress, on_rows, threads)


def train_alone(
    run: Run, latents_dir: Path, processes: int, on_progress: OnProgress, on_rows: OnRows, threads: int
) -> Path:
    """Do what `train` says, under the run's lock."""
    total, last = run.preset.training.train_steps, run.latest_checkpoint()
    done = 0 if last is None else steps_of(last)
    if last is not None and done >= total:
        return last
    if last is not None:
        check_resumable(last, run, processes)
        check_files(last)
    sweep_temporary(run.folder / "checkpoints")
    rewind(run.spool, done)
    on_progress(done, total, f"resumes from step {done}" if done else "starting")
    tail = SpoolTail(run.spool)

    def forward() -> None:
        rows = tail.new_rows()
        if rows:
            on_rows(rows)
            if rows[-1]["step"] > done:
                on_progress(rows[-1]["step"], total, describe(rows))

    with ProcessGroup(run, latents_dir, processes, threads) as group:
        try:
            while group.wait(POLL_S):
                forward()
        finally:
            forward()  # the rows of a training that fails lead up to its end
    final = run.latest_checkpoint()
    if final is None or steps_of(final) < total:
        raise RunError(f"the training of {run.run_id} ended without its last checkpoint: see {group.logs}.")
    return final


def describe(rows: list[dict[str, Any]]) -> str:
    """Return the latest losses in words."""
    latest = {name: row[name] for row in rows for name in ("train/loss", "val/loss") if name in row}
    return ", ".join(f"{name.replace('/', ' ')} {value:.4f}" for name, value in latest.items())


def check_stage(run: Run) -> None:
    """Raise RunError for what ZeRO-3 cannot do here."""
    training = run.preset.training
    if training.zero_stage == 3 and training.ema_decay:
        raise RunError(
            f"ema_decay is {training.ema_decay} and zero_stage 3: no process holds whole weights to average there; "
            "set ema_decay to 0 or zero_stage to 2."
        )


class ProcessGroup:
    """The ranks of one training on this machine; a context manager that leaves none behind."""

    def __init__(self, run: Run, latents_dir: Path, processes: int, threads: int = 0) -> None:
        self.run, self.latents_dir, self.count = run, latents_dir, processes
        self.threads = threads or max(1, len(os.sched_getaffinity(0)) // processes)
        self.logs = run.folder / "logs"
        self.rendezvous = self.logs / f"rendezvous-{uuid.uuid4().hex[:8]}"
        self.processes: list[GuardedProcess] = []

    def __enter__(self) -> ProcessGroup:
        self.logs.mkdir(parents=True, exist_ok=True)
        try:
            for rank in range(self.count):
                self.start(rank)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def start(self, rank: int) -> None:
        """Start a rank under a guard: it ends with this process, and with it whatever it starts."""
        command = [sys.executable, "-m", "tasks.training.worker", str(self.run.folder), str(self.latents_dir.resolve()),
                   "--rendezvous", str(self.rendezvous)]  # fmt: skip
        with open(self.logs / f"rank{rank}.log", "wb") as log:
            self.processes.append(GuardedProcess(command, env=self.environment(rank), output=log))

    def environment(self, rank: int) -> dict[str, str]:
        """Return what a rank finds in its environment; gloo keeps to loopback."""
        values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.count, "LOCAL_WORLD_SIZE": self.count,
                  "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": 1}  # fmt: skip
        if not torch.cuda.is_available():
            values |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": self.threads}
        return os.environ | {name: str(value) for name, value in values.items()}

    def wait(self, seconds: float) -> bool:
        """Wait for a rank to end, so long; return whether any still runs. RunError when one failed."""
        running = [process for process in self.processes if process.poll() is None]
        if running:
            running[0].wait(seconds)
        for rank, process in enumerate(self.processes):
            code = process.poll()
            if code:
                raise RunError(self.why(*self.first_cause(rank, code)))
        return any(process.poll() is None for process in self.processes)

    def first_cause(self, rank: int, code: int) -> tuple[int, int]:
        """Return the rank that failed, or one that says why in a sentence: the others fail because that one is gone."""
        deadline = time.monotonic() + GRACE_S
        for other, process in enumerate(self.processes):
            if process.wait(max(0.0, deadline - time.monotonic())) == REFUSED:
                return other, REFUSED
        return rank, code

    def why(self, rank: int, code: int) -> str:
        """Return one sentence on a rank that failed, with its own last words."""
        log = self.logs / f"rank{rank}.log"
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if code == REFUSED and lines:
            return lines[-1]
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        said = f"; its last words: {lines[-1]}" if lines else ""
        return (
            f"training process {rank} of {self.count} {how}{said}. Its log is {log}; "
            "run the deployment again to go on from the last checkpoint."
        )

    def end(self) -> None:
        """End what still runs and clean up."""
        for process in self.processes:
            process.request_stop()
        for process in self.processes:
            process.stop()
        self.rendezvous.unlink(missing_ok=True)
