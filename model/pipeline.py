"""From a picture and a trajectory per agent to a four-view video per agent, all of one world.

from model.pipeline import ShareVersePipeline

pipe = ShareVersePipeline.from_pretrained("my-model").to("cuda")
output = pipe(pictures=["a0.png", "a1.png"], trajectories="t.json", num_inference_steps=20)
output.videos[0][0].save("first.png")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler, DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from model import mosaic
from model.camera import FOV_DEG, VIEWS
from model.codec import LinearCodec, codec_of, encode_pictures
from model.objective import image_condition, put_given_frames
from model.pictures import first_frames as frames_of_pictures
from model.pipeline_folder import load_pipeline_parts
from model.presets import TEMPORAL_FACTOR
from model.raymap import build_raymaps
from model.text import EmptyText
from model.trajectories import cameras
from model.transformer import ShareVerseTransformer3DModel

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
MAX_STEPS = 1000
Callback = Callable[[DiffusionPipeline, int, torch.Tensor, dict[str, torch.Tensor]], dict[str, torch.Tensor]]


class PipelineError(ValueError):
    """An option that the pipeline does not know, or values that a model should not give: which, and what to do."""


@dataclass
class ShareVerseOutput(BaseOutput):
    """Generated videos. First frames are generated too; with `given_frames` they are the input's through the codec."""

    videos: Any
    """From `rollout`: [B, A, 3, T, H, W] in [-1, 1]. From the pipeline, as `output_type` says: "np" [A, T, H, W, 3] in
    [0, 1], "pt" [A, T, 3, H, W] in [0, 1], "pil" a list of T images per agent, "latent" [A, n * F, C, h, w], each of
    the n windows with its own first frame"""
    views: dict[str, Any] | None = None
    """The same of "front", "rear", "left" and "right"; None for latents"""
    latents: torch.Tensor | None = None
    """From `rollout`: [B, A, n * F, C, h, w]"""


class ShareVersePipeline(DiffusionPipeline):
    """Image-to-video for several agents at once.

    There is no classifier-free guidance, which only helps where image dropout was trained (trap 19: training only).
    """

    model_cpu_offload_seq = "text->transformer->codec"
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    def __init__(
        self,
        transformer: ShareVerseTransformer3DModel,
        codec: LinearCodec | AutoencoderKLCogVideoX,
        scheduler: CogVideoXDDIMScheduler | CogVideoXDPMScheduler,
        text: EmptyText,
        frames: int = 49,
        height: int = 480,
        width: int = 720,
        views: str = "four",
        raymap: dict[str, Any] | None = None,
        fps: float = 10.0,
        fov_deg: float = FOV_DEG,
        sampling_steps: int = 50,
        given_frames: int = 0,
        image_condition: str = "first",
        predicts_change: bool = False,
    ) -> None:
        """The parts, and what the model must know of its input; the latter is saved in model_index.json.

        `frames` of a window, of `height` x `width` pixels, showing the "four" views or the "front" one; `raymap`: the
        other options of `model.raymap.build_raymaps`; `fps`: of the recordings, for trajectories by speed; `fov_deg`:
        of their cameras; `sampling_steps`: where a call does not say; `given_frames`: leading latent frames, 0 or 1,
        that stay as they are given at every step; `image_condition`: the latent frames beside which the picture is put,
        the "first" or "all"; `predicts_change`: whether its output is added to those latents.
        """
        super().__init__()
        self.register_modules(transformer=transformer, codec=codec, scheduler=scheduler, text=text)
        self.register_to_config(
            frames=frames, height=height, width=width, views=views, raymap=raymap or {}, fps=fps, fov_deg=fov_deg,
            sampling_steps=sampling_steps, given_frames=given_frames, image_condition=image_condition,
            predicts_change=predicts_change,
        )  # fmt: skip

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        torch_dtype: torch.dtype = torch.float32,
        merge_adapter: bool = True,
        **replaced: Any,
    ) -> ShareVersePipeline:
        """Load what `save_pretrained` or `shareverse export` wrote: a folder, or a local copy from the hub.

        `torch_dtype`: of transformer and VAE; a linear codec and the text stay float32. `merge_adapter` False keeps the
        matrices of a folder with an adapter in peft's modules. `replaced`: components or options in place of the
        folder's. WeightsError for a folder that is damaged or holds another pipeline.
        """
        parts = load_pipeline_parts(name, cls.__name__, torch_dtype, skip=replaced.keys(), merge_adapter=merge_adapter)
        return cls(**parts | replaced)

    @torch.no_grad()
    def __call__(
        self,
        pictures: Sequence[Any],
        trajectories: Any,
        *,
        num_inference_steps: int | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ShareVerseOutput | tuple[Any, ...]:
        """Generate a video per agent from a picture (`model.pictures`) and a trajectory (`model.trajectories`) each.

        Trajectories longer than the model's window are generated window by window. `callback_on_step_end` is called as
        by diffusers' pipelines, with the step's index in its window. PictureError, TrajectoryError or PipelineError,
        all of them ValueErrors, for what cannot be used.
        """
        config = self.config
        steps = config.sampling_steps if num_inference_steps is None else num_inference_steps
        if type(steps) is not int or not 1 <= steps <= MAX_STEPS:
            raise PipelineError(f"num_inference_steps is {steps!r:.40}: give a whole number from 1 to {MAX_STEPS}.")
        if output_type not in OUTPUT_TYPES:
            raise PipelineError(f"output_type is {output_type!r:.40}: give one of {', '.join(OUTPUT_TYPES)}.")
        if unknown := set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs):
            raise PipelineError(
                f"a callback cannot be given {min(unknown)!r}: only {self._callback_tensor_inputs[0]!r}."
            )
        first = frames_of_pictures(pictures, config.height, config.width, config.views)
        K, c2w = cameras(
            trajectories, agents=len(first), frames=config.frames, views=config.views, fps=config.fps,
            fov_deg=config.fov_deg,
        )  # fmt: skip
        generated = self.rollout(
            first[None].to(self._execution_device), K[None], c2w[None], num_inference_steps=steps, generator=generator,
            callback_on_step_end=callback_on_step_end, decode=output_type != "latent",
        )  # fmt: skip
        self.maybe_free_model_hooks()
        output = to_output_type(generated, output_type, config.views)
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def rollout(
        self, first_frames: torch.Tensor, K: torch.Tensor, c2w: torch.Tensor, *, decode: bool = True, **options: Any
    ) -> ShareVerseOutput:
        """Generate long videos window by window, each starting from the last frame of the previous one.

        first_frames [B, A, 3, H, W] in [-1, 1]; K [B, A, V, 3, 3]; c2w [B, A, V, T, 4, 4], T = n * (frames - 1) + 1 for
        windows of `frames`; `options`: those of `denoise`. Without `decode` only latents are returned. ValueError for
        another T.
        """
        frames = self.config.frames
        windows, remainder = divmod(c2w.shape[3] - 1, frames - 1)
        if remainder or not windows:
            raise ValueError(f"a rollout of {c2w.shape[3]} frames is no whole number of windows of {frames}")
        videos, latents = [], []
        for window in range(windows):
            start = window * (frames - 1)
            raymaps = self.raymaps(K, c2w[:, :, :, start : start + frames])
            latents.append(self.denoise(first_frames, raymaps, **options))
            if decode or window < windows - 1:
                video = self.decode(latents[-1])
                videos.append(video if window == 0 else video[:, :, :, 1:])  # its first frame is the last one again
                first_frames = video[:, :, :, -1]
        return ShareVerseOutput(videos=torch.cat(videos, 3) if decode else None, latents=torch.cat(latents, 2))

    def raymaps(self, K: torch.Tensor, c2w: torch.Tensor) -> torch.Tensor:
        """Return this model's raymaps [B, A, F, 24, H/8, W/8] of cameras K [B, A, V, 3, 3], c2w [B, A, V, T, 4, 4]."""
        config = self.config
        return build_raymaps(K, c2w, height=config.height, width=config.width, views=config.views, **config.raymap)

    @torch.no_grad()
    def generate(self, first_frames: torch.Tensor, raymaps: torch.Tensor, **options: Any) -> torch.Tensor:
        """Return one window of video [B, A, 3, T, H, W] in [-1, 1]; arguments as of `denoise`."""
        return self.decode(self.denoise(first_frames, raymaps, **options))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the videos [B, A, 3, T, H, W] in [-1, 1] of one window's latents [B, A, F, C, h, w]."""
        return codec_of(self.codec).decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])

    @torch.no_grad()
    def denoise(
        self,
        first_frames: torch.Tensor,
        raymaps: torch.Tensor,
        *,
        num_inference_steps: int,
        noise: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        callback_on_step_end: Callback | None = None,
    ) -> torch.Tensor:
        """Return one window's latents [B, A, F, C, h, w] float32: the sampling loop, of which there is no other.

        From first_frames [B, A, 3, H, W] in [-1, 1] and raymaps [B, A, F, 24 or 48, H/8, W/8]. A single step from pure
        noise gives the conditional mean (zero terminal SNR): blurred, with the highest PSNR. `noise` [B, A, F, C, h,
        w], or `generator`, determines the result. `dtype` is what the transformer computes in, its weights' where not
        said; they may still be float32.
        """
        device, (batch, agents), frames = first_frames.device, first_frames.shape[:2], raymaps.shape[2]
        dtype = dtype or self.transformer.dtype
        still = (frames - 1) * TEMPORAL_FACTOR + 1 if self.config.image_condition == "all" else 1
        image_latents = encode_pictures(codec_of(self.codec), first_frames, still).to(device).float()
        shape = (batch, agents, frames, *image_latents.shape[3:])
        noise = randn_tensor(shape, generator=generator, device=device) if noise is None else noise
        given, condition = self.config.given_frames, image_condition(image_latents, frames)
        latents = put_given_frames(noise.to(device), image_latents, given)
        text, raymaps = self.text(batch).to(device, dtype), raymaps.to(device, dtype)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        timesteps, old_x0 = self.scheduler.timesteps, None
        for step, timestep in enumerate(self.progress_bar(timesteps)):
            inputs = torch.cat([latents, condition], 3).to(dtype)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                predicted = self.transformer(inputs, text, timestep.repeat(batch), raymaps=raymaps).sample.float()
            if self.config.predicts_change:
                predicted = image_latents + predicted
            if isinstance(self.scheduler, CogVideoXDPMScheduler):
                previous = timesteps[step - 1] if step else None
                latents, old_x0 = self.scheduler.step(
                    predicted, old_x0, timestep, previous, latents, generator=generator, return_dict=False
                )
            else:
                latents = self.scheduler.step(predicted, timestep, latents, return_dict=False)[0]
            latents = put_given_frames(latents, image_latents, given)
            if callback_on_step_end is not None:
                latents = callback_on_step_end(self, step, timestep, {"latents": latents}).get("latents", latents)
        return latents


def to_output_type(generated: ShareVerseOutput, output_type: str, views: str) -> ShareVerseOutput:
    """Return the only scene of a rollout as `output_type` says. PipelineError for values that are no numbers."""
    result: Any = generated.latents if generated.videos is None else generated.videos
    if not torch.isfinite(result).all():
        raise PipelineError(
            "the model generates values that are no numbers: its weights are of no use, or dtype too small."
        )
    if generated.videos is None:
        return ShareVerseOutput(videos=result[0])
    videos = ((result[0].float().cpu() + 1) / 2).clamp(0, 1).transpose(1, 2)  # [A, T, 3, H, W]
    parts = dict(zip(VIEWS, mosaic.split(videos).unbind(2), strict=True)) if views == "four" else {"front": videos}
    return ShareVerseOutput(
        videos=as_type(videos, output_type), views={name: as_type(part, output_type) for name, part in parts.items()}
    )


def as_type(videos: torch.Tensor, output_type: str) -> Any:
    """Return videos [A, T, 3, H, W] in [0, 1] as tensor, array or lists of images."""
    if output_type == "pt":
        return videos.contiguous()
    frames = videos.movedim(2, -1).contiguous().numpy()
    if output_type == "np":
        return frames
    return [[Image.fromarray(frame) for frame in video] for video in (frames * 255).round().astype("uint8")]
