"""The model behind the page: from the last frame and the cars' next poses to their next frames, chunk by chunk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
import torch
import torch.nn.functional as F

from model import mosaic
from model.camera import FOV_DEG, VIEWS, camera_poses, carla_to_c2w, intrinsics
from model.pipeline import ShareVersePipeline
from model.weights import WeightsError, stored_shapes
from tasks.encoding.latents import latents_key
from tasks.evaluation.report.pictures import pixels
from tasks.evaluation.scoring.sampling import NO_NUMBERS, Sampler, best_device
from tasks.play.errors import PlayError
from tasks.runs.run import RUN_ID, read_run

STUDENT_STEPS = 4
"""A model whose own number of sampling steps is at most this is a student: made for few steps."""
MEMORY_FACTOR = 1.5
"""Memory that a model takes while it is loaded, as a multiple of its float32 weights."""


class PlayableModel(Protocol):
    """What the session needs of a model; `WorldModel` is one, and tests have another."""

    view_width: int
    view_height: int
    chunk_frames: int
    """Most new frames of a call of `advance`"""

    def start(self, first_pictures: np.ndarray, poses: np.ndarray) -> np.ndarray: ...

    def advance(self, poses: np.ndarray) -> np.ndarray: ...


class WorldModel:
    """A trained model, generating one world on and on."""

    def __init__(
        self, pipeline: ShareVersePipeline, name: str, steps: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        """`steps`: of sampling per chunk, 0: the model's own; `dtype`: what the transformer computes in. PlayError for
        a model that does not see four views."""
        config = pipeline.config
        if config.views != "four":
            raise PlayError("this model sees the front camera alone: play one that sees four views.")
        self.pipeline, self.name, self.dtype = pipeline, name, dtype
        self.pipeline.set_progress_bar_config(disable=True)
        self.steps, self.is_student = steps or config.sampling_steps, config.sampling_steps <= STUDENT_STEPS
        self.height, self.width = config.height, config.width
        self.view_width, self.view_height = self.width // 2, self.height // 2
        self.chunk_frames = config.frames - 1
        self.device = next(pipeline.transformer.parameters()).device
        self.generator = torch.Generator().manual_seed(0)
        self.last_frames, self.last_poses = torch.empty(0), np.empty(0)

    def start(self, first_pictures: np.ndarray, poses: np.ndarray) -> np.ndarray:
        """Begin with mosaics [A, H, W, 3] uint8 of cars at poses [A, 6]; return them in the model's size."""
        pictures = torch.from_numpy(first_pictures).movedim(-1, 1).float()
        if pictures.shape[-1] < self.width:  # the scenes' pictures are smaller than what this model sees
            views = mosaic.split(pictures)
            larger = F.interpolate(views.flatten(0, 1), (self.view_height, self.view_width), mode="bilinear")
            pictures = mosaic.assemble(larger.unflatten(0, views.shape[:2]))
        self.last_frames = mosaic.resize(pictures, self.height, self.width).div(127.5).sub(1)
        self.last_poses = np.asarray(poses, np.float64)
        return pixels(self.last_frames[:, :, None])[:, 0]

    def advance(self, poses: np.ndarray) -> np.ndarray:
        """Return the next frames [A, n, H, W, 3] uint8 of cars that go on to poses [A, n, 6], n <= chunk_frames.

        A shorter chunk is generated with the cars going on as in its last step. PlayError when the model's values are
        no numbers.
        """
        agents, new = poses.shape[:2]
        cars = extended(np.concatenate([self.last_poses[:, None], poses], 1), self.chunk_frames + 1)
        c2w = carla_to_c2w(camera_poses(cars)).swapaxes(1, 2)  # [A, V, T, 4, 4]
        K = np.broadcast_to(intrinsics(self.view_width, self.view_height, FOV_DEG), (agents, len(VIEWS), 3, 3))
        videos = self.pipeline.rollout(
            self.last_frames[None].to(self.device),
            torch.from_numpy(K.copy())[None],
            torch.from_numpy(c2w.copy())[None],
            num_inference_steps=self.steps,
            generator=self.generator,
            dtype=self.dtype,
        ).videos[0, :, :, 1 : new + 1]
        videos = videos.float().cpu()
        if not torch.isfinite(videos).all():
            raise PlayError(NO_NUMBERS)
        self.last_frames, self.last_poses = videos[:, :, -1], np.asarray(poses[:, -1], np.float64)
        return pixels(videos)


def extended(poses: np.ndarray, frames: int) -> np.ndarray:
    """Return poses [A, T, 6], made `frames` long by repeating their last step."""
    step = poses[:, -1:] - poses[:, -2:-1]
    step[..., 4] = (step[..., 4] + 180) % 360 - 180
    more = np.arange(1, frames - poses.shape[1] + 1)[:, None]
    return np.concatenate([poses, poses[:, -1:] + step * more], 1)


def load_world_model(name: str, steps: int = 0) -> WorldModel:
    """Return the model of a run (its id; empty: the run opened last) or of a folder that `shareverse export` wrote.

    PlayError for one that does not fit into memory; WeightsError, RunError, EvaluationError, CodecError or PresetError
    as the loaders of each part raise.
    """
    folder = Path(name)
    if name and not RUN_ID.fullmatch(name) and not folder.is_dir():
        raise PlayError(f"{name!a:.120} is no run's id and no folder: name a run, or what `shareverse export` wrote.")
    if name and folder.is_dir():
        require_memory(folder / "transformer")
        pipeline = ShareVersePipeline.from_pretrained(folder).to(best_device())
        return WorldModel(pipeline, folder.resolve().name, steps)
    run = read_run(name)
    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        raise PlayError(f"run {run.run_id} has no checkpoint in {run.folder}: train it first.")
    require_memory(checkpoint / "model")
    latents_dir = run.dataset_dir / "latents" / latents_key(run.dataset_digest, run.preset)
    sampler = Sampler.of_checkpoint(run.preset, checkpoint, latents_dir)
    return WorldModel(sampler.pipeline, run.preset.name, steps, sampler.dtype)


def require_memory(model_dir: Path) -> None:
    """Raise PlayError when a model's weights do not fit into the memory that is free."""
    try:
        numbers = sum(math.prod(shape) for shape in stored_shapes(model_dir).values())
    except WeightsError as error:
        raise PlayError(f"the model cannot be used ({error}): restore it, or name another one.") from error
    needed, free = MEMORY_FACTOR * 4 * numbers, psutil.virtual_memory().available
    if needed > free:
        raise PlayError(
            f"the model in {model_dir} needs {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: "
            "end other programs, or play a smaller model."
        )
