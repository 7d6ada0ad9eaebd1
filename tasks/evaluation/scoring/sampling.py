"""A checkpoint, ready to generate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from infra.deepspeed_config import use_bf16
from infra.storage import sha256_bytes
from model.build import build_pipeline, text_embedding
from model.codec import Codec, load_codec, round_trip
from model.presets import Preset
from model.transformer import ShareVerseTransformer3DModel
from model.weights import WeightsError, load_weights
from tasks.evaluation.errors import EvaluationError
from tasks.runs.checkpoint_record import check_files

NO_NUMBERS = "the checkpoint generates values that are no numbers: train again, with a lower learning_rate."
SIZES = ("num_attention_heads", "attention_head_dim", "num_layers", "patch_size", "time_embed_dim", "text_embed_dim")
"""Fields of a preset that the model's own configuration repeats."""
TOKENS_AT_ONCE = 4096
"""Tokens of both agents in a forward pass: larger batches are no faster on two cores."""


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_model(model: ShareVerseTransformer3DModel, preset: Preset, folder: Path) -> None:
    """Raise EvaluationError when a model is not the one that the preset describes."""
    _, channels, height, width = preset.latent_shape
    described = preset.cross_agent_options | {"out_channels": channels, "in_channels": 2 * channels}
    if not preset.transformer.base_model:  # else its sizes come from there
        described |= {name: getattr(preset.transformer, name) for name in SIZES}
        described |= {"sample_height": height, "sample_width": width, "sample_frames": preset.video.frames}
    for name, needs in described.items():
        if model.config[name] != needs:
            raise EvaluationError(
                f"the checkpoint {folder.parent} has {name} {model.config[name]!r} and its run's configuration says "
                f"{needs!r}: it belongs to another run; restore it, or train the run again."
            )


class Sampler:
    """The pipeline of one checkpoint, with noise that depends on the window alone."""

    def __init__(self, preset: Preset, model_dir: Path, codec: Codec) -> None:
        """Load `model_dir` (safetensors, diffusers layout).

        EvaluationError when it is missing, damaged, not finite, or not a model as the preset describes it.
        """
        self.preset, self.codec, self.device = preset, codec, best_device()
        try:
            transformer = load_weights(ShareVerseTransformer3DModel, model_dir, low_cpu_mem_usage=False)
        except WeightsError as error:
            raise EvaluationError(
                f"the checkpoint {model_dir.parent} cannot be used ({error}): restore it, or train the run again."
            ) from error
        check_model(transformer, preset, model_dir)
        self.pipeline = build_pipeline(preset, transformer.eval().float(), codec, text_embedding(preset)).to(
            self.device
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.dtype = torch.bfloat16 if use_bf16(preset.training.precision) else torch.float32

    @classmethod
    def of_checkpoint(cls, preset: Preset, checkpoint: Path, latents_dir: Path) -> Sampler:
        """Load a run's checkpoint folder with the codec that made its latents.

        RunError when a file of it is not what its hash says; else as `Sampler` and `load_codec`.
        """
        check_files(checkpoint, "model/")
        return cls(preset, checkpoint / "model", load_codec(preset.codec, latents_dir))

    @property
    def batch(self) -> int:
        """Pairs in a forward pass."""
        frames, _, height, width = self.preset.latent_shape
        return max(1, TOKENS_AT_ONCE // (2 * frames * height * width // self.preset.transformer.patch_size**2))

    def noise(self, names: Sequence[str], agents: int) -> torch.Tensor:
        """Return the starting noise [N, A, F, C, h, w] of windows by their names."""
        shape = (agents, *self.preset.latent_shape)
        seeds = [int(sha256_bytes(name.encode())[:12], 16) for name in names]
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def generate(
        self,
        first_frames: torch.Tensor,
        raymaps: torch.Tensor,
        names: Sequence[str],
        steps: int,
        *,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return videos [N, A, 3, T, H, W] in [-1, 1] on the CPU, from first frames [N, A, 3, H, W] in [-1, 1].

        `noise` [N, A, F, C, h, w] in place of the names' own.
        """
        noise = self.noise(names, first_frames.shape[1]) if noise is None else noise
        videos = self.pipeline.generate(
            first_frames.to(self.device),
            raymaps.to(self.device),
            num_inference_steps=steps,
            noise=noise,
            dtype=self.dtype,
        )
        videos = videos.float().cpu()
        if not torch.isfinite(videos).all():
            raise EvaluationError(NO_NUMBERS)
        return videos

    def round_trip(self, videos: torch.Tensor) -> torch.Tensor:
        """Return videos [N, A, 3, T, H, W] encoded and decoded (model/codec.py)."""
        return round_trip(self.codec, videos, self.device)
