"""A run's held-out windows as VBench's rows: ground truth and model, mosaics and views."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from infra.storage import OnProgress, no_progress
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.report.write import frames_per_second, latents_dir_of
from tasks.evaluation.scoring.sampling import Sampler
from tasks.evaluation.scoring.score import MOST_AT_FULL_STEPS
from tasks.evaluation.scoring.windows import Windows
from tasks.evaluation.vbench.videos import write_rows
from tasks.runs.run import Run
from tasks.sharding.reader import ClipIndex


def write_run(
    run: Run, split: str, steps: int, folder: Path, on_progress: OnProgress = no_progress
) -> dict[str, list[Path]]:
    """Write the windows of a split as recorded and as a run's last checkpoint generates them; return the rows.

    At most MOST_AT_FULL_STEPS windows are taken, spread evenly over the recordings. `steps` 0: the preset's sampling
    steps. EvaluationError for a run without checkpoint, or a split without clips.
    """
    checkpoint, rows = run.latest_checkpoint(), ClipIndex(run.dataset_dir).whole(split)
    if checkpoint is None:
        raise EvaluationError(f"run {run.run_id} has no checkpoint in {run.folder}: train it first.")
    if not rows:
        raise EvaluationError(f"{run.dataset_dir} has no clips in split {split!r}: score another split.")
    windows = Windows(run.dataset_dir, rows, run.preset)
    windows.keep_at_most(MOST_AT_FULL_STEPS)
    sampler = Sampler.of_checkpoint(run.preset, checkpoint, latents_dir_of(run))
    fps, views = frames_per_second(run, split), run.preset.video.views == "four"

    def generated() -> Iterator[torch.Tensor]:
        for indices in windows.batches(sampler.batch):
            on_progress(indices[0], len(windows), windows[indices[0]].row["town"])
            first, names = windows.video(indices)[:, :, :, 0], [windows[index].name for index in indices]
            yield from sampler.generate(
                first, windows.raymaps(indices), names, steps or run.preset.sampling.sampling_steps
            )

    truth = (video for indices in windows.batches(sampler.batch) for video in windows.video(indices))
    found = write_rows(folder, "ground truth", truth, fps, views=views)
    found |= write_rows(folder, "model", generated(), fps, views=views)
    on_progress(len(windows), len(windows), "")
    return found
