"""Two first frames and two camera trajectories to two four-view videos of one world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, DiffusionPipeline
from diffusers.utils import BaseOutput

from model import mosaic
from model.codec import Codec
from model.objective import condition
from model.raymap import build_raymaps
from model.transformer import ShareVerseTransformer3DModel


@dataclass
class ShareVerseOutput(BaseOutput):
    """Generated videos in [-1, 1]; the first frame of each is generated too."""

    videos: torch.Tensor
    """[B, A, 3, T, H, W] mosaics"""

    @property
    def views(self) -> torch.Tensor:
        """[B, A, 4, 3, T, h, w]: front, rear, left, right."""
        return mosaic.split(self.videos.transpose(3, 2)).movedim(-4, 2).transpose(3, 4)


class ShareVersePipeline(DiffusionPipeline):
    """Image-to-video for several agents at once; guidance stays off unless image dropout was trained (trap 19)."""

    def __init__(
        self,
        transformer: ShareVerseTransformer3DModel,
        scheduler: CogVideoXDDIMScheduler,
        codec: Codec,
        text: torch.Tensor,
    ) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)
        self.codec, self.text = codec, text

    @torch.no_grad()
    def __call__(
        self,
        first_frames: torch.Tensor,
        raymaps: torch.Tensor,
        *,
        num_inference_steps: int = 50,
        noise: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> ShareVerseOutput:
        """Generate from first_frames [B, A, 3, H, W] in [-1, 1] and raymaps [B, A, F, 24, H/8, W/8].

        One step from pure noise gives the conditional mean (zero terminal SNR): the best PSNR, blurred. `noise`
        [B, A, F, C, h, w] or `generator` fix the outcome. `dtype` is what the transformer's products are computed in;
        its weights may be float32 all the same.
        """
        batch, agents = first_frames.shape[:2]
        image, _ = self.codec.encode(first_frames.flatten(0, 1)[:, :, None])
        image = image.unflatten(0, (batch, agents)).to(first_frames.device)
        frames = raymaps.shape[2]
        shape = (batch, agents, frames, *image.shape[3:])
        latents = torch.randn(shape, generator=generator) if noise is None else noise
        latents, given = latents.to(first_frames.device), condition(image.float(), frames)
        text = self.text.to(latents.device, dtype).expand(batch, -1, -1)
        self.scheduler.set_timesteps(num_inference_steps, device=latents.device)
        for step in self.progress_bar(self.scheduler.timesteps):
            inputs = torch.cat([latents, given], 3).to(dtype)
            with torch.autocast(latents.device.type, dtype, enabled=dtype != torch.float32):
                predicted = self.transformer(inputs, text, step.repeat(batch), raymaps=raymaps.to(dtype)).sample.float()
            latents = self.scheduler.step(predicted, step, latents, return_dict=False)[0]
        videos = self.codec.decode(latents.flatten(0, 1)).unflatten(0, (batch, agents))
        return ShareVerseOutput(videos=videos)

    def rollout(
        self,
        first_frames: torch.Tensor,
        K: torch.Tensor,
        c2w: torch.Tensor,
        *,
        frames: int,
        raymap: dict,
        **options: Any,
    ) -> ShareVerseOutput:
        """Generate a long video window by window, each from the last frame of the one before.

        K [B, A, V, 3, 3], c2w [B, A, V, T, 4, 4] with T = n * (frames - 1) + 1; `raymap`: options of `build_raymaps`.
        """
        windows, rest = divmod(c2w.shape[3] - 1, frames - 1)
        if rest or not windows:
            raise ValueError(f"a rollout of {c2w.shape[3]} frames is no whole number of windows of {frames}")
        parts = []
        for window in range(windows):
            start = window * (frames - 1)
            cameras = c2w[:, :, :, start : start + frames]
            videos = self(first_frames, build_raymaps(K, cameras, **raymap), **options).videos
            parts.append(videos if window == 0 else videos[:, :, :, 1:])
            first_frames = videos[:, :, :, -1]
        return ShareVerseOutput(videos=torch.cat(parts, 3))
