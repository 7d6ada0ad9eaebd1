"""From a first frame and a camera trajectory per agent to a four-view video per agent, all of one world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, DiffusionPipeline
from diffusers.utils import BaseOutput

from model import mosaic
from model.codec import Codec
from model.objective import image_condition, put_given_frames
from model.raymap import build_raymaps
from model.transformer import ShareVerseTransformer3DModel


@dataclass
class ShareVerseOutput(BaseOutput):
    """Generated videos in [-1, 1]. Their first frames are generated too, not copied from the input."""

    videos: torch.Tensor
    """[B, A, 3, T, H, W] mosaics"""

    @property
    def views(self) -> torch.Tensor:
        """[B, A, 4, 3, T, h, w]: front, rear, left, right."""
        return mosaic.split(self.videos.transpose(3, 2)).movedim(-4, 2).transpose(3, 4)


class ShareVersePipeline(DiffusionPipeline):
    """Image-to-video for several agents at once.

    There is no classifier-free guidance, which only helps where image dropout was trained (trap 19: training only).
    """

    def __init__(
        self,
        transformer: ShareVerseTransformer3DModel,
        scheduler: CogVideoXDDIMScheduler,
        codec: Codec,
        text: torch.Tensor,
        given_frames: int = 0,
    ) -> None:
        """`text`: the text embedding [1, L, D], the same for every video. `given_frames`: leading latent frames that
        stay as they are given at every step, 0 or 1."""
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)
        self.codec, self.text, self.given_frames = codec, text, given_frames

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

        A single step from pure noise gives the conditional mean (zero terminal SNR): blurred, with the highest PSNR.
        `noise` [B, A, F, C, h, w], or `generator`, determines the result. `dtype` is what the transformer computes in;
        its weights may still be float32.
        """
        batch, agents = first_frames.shape[:2]
        image_latents, _ = self.codec.encode(first_frames.flatten(0, 1)[:, :, None])
        image_latents = image_latents.unflatten(0, (batch, agents)).to(first_frames.device)
        frames = raymaps.shape[2]
        shape = (batch, agents, frames, *image_latents.shape[3:])
        latents = torch.randn(shape, generator=generator) if noise is None else noise
        image_latents = image_latents.float()
        condition = image_condition(image_latents, frames)
        latents = put_given_frames(latents.to(first_frames.device), image_latents, self.given_frames)
        text, raymaps = self.text.to(latents.device, dtype).expand(batch, -1, -1), raymaps.to(dtype)
        self.scheduler.set_timesteps(num_inference_steps, device=latents.device)
        for timestep in self.progress_bar(self.scheduler.timesteps):
            inputs = torch.cat([latents, condition], 3).to(dtype)
            with torch.autocast(latents.device.type, dtype, enabled=dtype != torch.float32):
                predicted = self.transformer(inputs, text, timestep.repeat(batch), raymaps=raymaps).sample.float()
            latents = self.scheduler.step(predicted, timestep, latents, return_dict=False)[0]
            latents = put_given_frames(latents, image_latents, self.given_frames)
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
        """Generate a long video window by window, each starting from the last frame of the previous one.

        K [B, A, V, 3, 3]; c2w [B, A, V, T, 4, 4] with T = n * (frames - 1) + 1, where `frames` is the length of a
        window; `raymap`: the options of `build_raymaps`; `options`: those of a single call. ValueError for another T.
        """
        windows, remainder = divmod(c2w.shape[3] - 1, frames - 1)
        if remainder or not windows:
            raise ValueError(f"a rollout of {c2w.shape[3]} frames is no whole number of windows of {frames}")
        videos = []
        for window in range(windows):
            start = window * (frames - 1)
            cameras = c2w[:, :, :, start : start + frames]
            video = self(first_frames, build_raymaps(K, cameras, **raymap), **options).videos
            videos.append(video if window == 0 else video[:, :, :, 1:])  # its first frame is the last one again
            first_frames = video[:, :, :, -1]
        return ShareVerseOutput(videos=torch.cat(videos, 3))
