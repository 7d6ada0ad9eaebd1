"""One clip's two worlds as videos: two first frames and two trajectories in, two mosaics and eight views out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from infra.storage import atomic_file, make_folder
from model import mosaic
from model.camera import VIEWS
from model.pictures import PictureError
from model.pipeline import PipelineError, ShareVersePipeline
from model.trajectories import TrajectoryError
from model.weights import WeightsError
from tasks.encoding.frames import model_video
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.report.pictures import pixels, write_video
from tasks.evaluation.scoring.sampling import NO_NUMBERS, Sampler, best_device
from tasks.runs.run import Run
from tasks.sharding.reader import ClipIndex, ClipPair, read_pair

SHOWN_KEYS = 3
DEFAULT_MODEL = ""
"""Folder of the pipeline that generates own pictures where none is named; empty: one must be named."""


def find_clip(index: ClipIndex, key: str) -> ClipPair:
    """Return a stored clip. EvaluationError names some that there are."""
    found = [row for row in index.rows if row["key"] == key]
    if not found:
        some = ", ".join(row["key"] for row in index.split("test")[:SHOWN_KEYS])
        raise EvaluationError(f"{index.dataset_dir} has no clip {key!a}: of the test split there are {some}, ...")
    return read_pair(key, index.read(found[0]))


def generate_clip(
    run: Run, latents_dir: Path, key: str, folder: Path, *, steps: int = 0, windows: int = 1, seed: int = 0
) -> list[Path]:
    """Generate a clip with a run's last checkpoint from its first frames and cameras; write its videos to `folder`.

    `steps` 0: the preset's; `windows`: of the model's length, each going on from the last frame before. Returns the
    paths. EvaluationError for an unknown clip, a missing checkpoint, a clip that is too short, or a target that is no
    folder; RunError for a checkpoint that is damaged, or a data set that is not the run's.
    """
    preset, checkpoint = run.preset, run.latest_checkpoint()
    if checkpoint is None:
        raise EvaluationError(f"run {run.run_id} has no checkpoint in {run.folder}: train it first.")
    pair = find_clip(run.clips(), key)
    frames = windows * (preset.video.frames - 1) + 1
    if windows < 1 or frames > len(pair.cameras.time_s):
        raise EvaluationError(
            f"{windows} windows are {frames} frames and clip {key} has {len(pair.cameras.time_s)}: "
            "give 1 window or more that fit."
        )
    make_folder(folder, EvaluationError)
    sampler = Sampler.of_checkpoint(preset, checkpoint, latents_dir)
    first = model_video(pair.videos[:, :1], preset.video)[None, :, :, 0]
    videos = sampler.pipeline.rollout(
        first.to(sampler.device),
        torch.from_numpy(pair.cameras.K)[None],
        torch.from_numpy(pair.cameras.c2w[:, :, :frames])[None],
        num_inference_steps=steps or preset.sampling.sampling_steps,
        generator=torch.Generator().manual_seed(seed),
        dtype=sampler.dtype,
    ).videos[0]
    if not torch.isfinite(videos).all():
        raise EvaluationError(NO_NUMBERS)
    return write_videos(videos.float().cpu(), preset.video.views, float(pair.meta["fps"]), folder)


def generate_own(
    model: str, pictures: Sequence[str], trajectories: Path, folder: Path, *, steps: int = 0, seed: int = 0
) -> list[Path]:
    """Generate from a picture file per agent and a file of trajectories with an exported model; write as
    `generate_clip`.

    `steps` 0: the model's own. EvaluationError for a model, a picture or a trajectory that cannot be used, and for a
    target that is no folder.
    """
    if not model:
        raise EvaluationError(
            "there is no model of our own yet: name --model, a folder that `shareverse export` wrote."
        )
    try:
        pipeline = ShareVersePipeline.from_pretrained(model).to(best_device())
    except WeightsError as error:
        raise EvaluationError(f"the model {model!a:.200} cannot be used ({error}): name another --model.") from error
    make_folder(folder, EvaluationError)
    try:
        output = pipeline(
            pictures=list(pictures),
            trajectories=trajectories,
            num_inference_steps=steps or None,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        )
    except (PictureError, TrajectoryError, PipelineError) as error:
        raise EvaluationError(str(error)) from error
    videos = output.videos.transpose(1, 2) * 2 - 1
    return write_videos(videos, pipeline.config.views, pipeline.config.fps, folder)


def write_videos(videos: torch.Tensor, views: str, fps: float, folder: Path) -> list[Path]:
    """Write agentN.mp4 and, of a mosaic, agentN_<view>.mp4 of videos [A, 3, T, H, W] in [-1, 1]."""
    parts: dict[str, torch.Tensor] = {}
    for agent, video in enumerate(videos):
        parts[f"agent{agent}"] = video
        if views == "four":
            cut = mosaic.split(video.transpose(0, 1)).unbind(-4)
            parts |= {f"agent{agent}_{view}": part.transpose(0, 1) for view, part in zip(VIEWS, cut, strict=True)}
    for name, part in parts.items():
        with atomic_file(folder / f"{name}.mp4") as temporary:
            write_video(temporary, pixels(part), fps)
    return [folder / f"{name}.mp4" for name in parts]
