"""Model and training presets: TOML files in this folder, read into frozen settings.

Field names are unique over all sections, so any of them can be changed by its bare name.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from model.presets.base import Count, CountOrNone, Frames, NamedPreset, PresetError, Seed, Settings
from model.presets.messages import Misfit

__all__ = [
    "FOLDER", "LATER", "CodecConfig", "CrossAgent", "LearningRate", "ObjectiveConfig", "Preset", "PresetError",
    "SamplingConfig", "Seed", "TrainSteps", "TrainingConfig", "TransformerConfig", "VideoConfig",
]  # fmt: skip

FOLDER = Path(__file__).parent
CODEC_PIXELS = 8
"""Sides of the pixels that one latent stands for."""
LATER = ("chroma_weight",)
"""Fields that came after the first runs: while they have their defaults, runs and latents are not known by them."""

Side = Annotated[int, Field(ge=16, le=8192)]
Size = Annotated[int, Field(ge=1, le=65_536)]
Source = Annotated[
    str, Field(max_length=4096, pattern=r"^[^\x00]*$", json_schema_extra={"wording": "a path or a name"})
]
"""A path, or a name of the Hugging Face hub; empty: none."""
Metres = Annotated[float, Field(ge=0, le=1e6)]
LearningRate = Annotated[float, Field(gt=0, le=1e9, strict=True, allow_inf_nan=False)]
TrainSteps = Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)]
CrossAgent = Literal["on", "within", "off"]


class VideoConfig(Settings):
    """What the model sees of a clip."""

    frames: Frames = 49
    """8k+1: the CogVideoX VAE decodes other counts wrongly, without an error (trap 37)."""
    height: Side = 480
    """Of the mosaic; of the front view for views "front"."""
    width: Side = 720
    """As the height."""
    views: Literal["four", "front"] = "four"
    """All four cameras in a mosaic, or the front one alone."""


class CodecConfig(Settings):
    """Pixels to latents: 8x in space, 4x in time, the first frame apart."""

    codec: Literal["cogvideox", "linear"] = "cogvideox"
    """"cogvideox": AutoencoderKLCogVideoX; "linear": a fixed basis fitted on the training clips (trap 38)."""
    codec_path: Source = "THUDM/CogVideoX-5b-I2V"
    """The folder or name of the VAE."""
    latent_channels: Annotated[int, Field(ge=1, le=3 * CODEC_PIXELS**2)] = 16
    """At most the numbers in the pixels that a latent of the first frame stands for."""
    chroma_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Of the linear codec: how many times an error of colour counts one of brightness."""

    @model_validator(mode="after")
    def only_the_linear_codec_weighs_chroma(self) -> Self:
        if self.codec != "linear" and self.chroma_weight != 1:
            raise Misfit(
                f"chroma_weight is {self.chroma_weight}",
                "only the linear codec weighs chroma; set codec to linear, or chroma_weight to 1",
            )
        return self


class TransformerConfig(Settings):
    """The transformer; with a `base_model` its sizes come from there."""

    base_model: Source = "THUDM/CogVideoX-5b-I2V"
    """diffusers folder or name of a CogVideoX-5B-I2V; empty: from scratch with the sizes below."""
    num_layers: Annotated[int, Field(ge=1, le=1000)] = 42
    """Blocks."""
    num_attention_heads: Annotated[int, Field(ge=1, le=1024)] = 48
    """Of every block."""
    attention_head_dim: Annotated[int, Field(ge=16, le=1024, multiple_of=16)] = 64
    """Channels of a head; a multiple of 16, which the rotary positions are divided by."""
    patch_size: Annotated[int, Field(ge=1, le=64)] = 2
    """Sides of the latents that make one token."""
    time_embed_dim: Size = 512
    """Channels of the timestep's embedding."""
    text_embed_dim: Size = 4096
    """Channels of the text embedding."""
    text_tokens: Size = 226
    """Tokens of the text embedding."""
    text_embedding: Source = ""
    """safetensors file with T5("") as `empty` [226, 4096] (trap 16; docs/PAPER_SCALE.md); from scratch: zeros."""
    camera: Literal["raymap", "raw"] = "raymap"
    """Poses as a ray per pixel, or as raw camera values."""
    cross_agent: CrossAgent = "on"
    """Cross-agent blocks that see both agents, the same blocks "within" one agent (the control), or none."""
    cross_agent_mode: Literal["attention", "block"] = "attention"
    """A cross-agent block is attention alone, or has the feed-forward half of a DiT block too."""
    cross_rope: Literal["doubled", "shared"] = "doubled"
    """Rotary positions: over the frames of one agent after the other, or over one time axis for all."""
    cross_agent_every: Annotated[int, Field(ge=1, le=1000)] = 2
    """From one block with a raymap encoder and a cross-agent block to the next."""
    raymap_unit_m: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Metres that count as 1 in ray origins."""
    raymap_centroid: Literal["all", "first"] = "all"
    """"all" frames (paper) or the "first" (trap 41)."""
    raymap_axes: Literal["map", "agent0"] = "map"
    """The "map"'s (paper), or turned so that "agent0" looks along x in frame 0."""


class ObjectiveConfig(Settings):
    """The loss and its conditions."""

    snr_shift_scale: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Of the noise schedule's signal-to-noise ratio."""
    timestep_bias: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """1: uniform; larger: more of the noisy end."""
    image_noise: bool = True
    """Noise on the first frame's pixels in training (trap 19), sigma = exp(N(mean, std))."""
    image_noise_mean: Annotated[float, Field(ge=-100, le=20)] = -3.0
    """Of the logarithm of sigma."""
    image_noise_std: Annotated[float, Field(ge=0, le=20)] = 0.5
    """Of the logarithm of sigma."""
    image_dropout: Annotated[float, Field(ge=0, le=1)] = 0.05
    """The share of pairs that are trained without their first frames."""
    raymap_translation_m: Metres = 10.0
    """Standard deviation of the random translation common to a pair's cameras."""


class TrainingConfig(Settings):
    """The optimisation."""

    seed: Seed = 0
    """Of weights from scratch, the order of the pairs, and their noise."""
    learning_rate: LearningRate = 2e-5
    """Of AdamW, after the warm-up."""
    batch_size: Count = 16
    """Pairs per step, over all processes."""
    micro_batch_size: Count = 1
    """Pairs per forward pass of one process."""
    train_steps: TrainSteps = 10_000
    """Steps of the optimiser."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000)] = 100
    """Steps over which the learning rate grows from 0."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: "constant", or "cosine" down to 5 % at the last step."""
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 1e-4
    """Of AdamW."""
    max_grad_norm: Annotated[float, Field(ge=0, le=1e9)] = 1.0
    """Gradients are scaled down to this norm; 0: never."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the running average of the weights; 0: none."""
    precision: Literal["auto", "bf16", "fp32"] = "bf16"
    """"auto": bf16 where the hardware multiplies it, else fp32."""
    zero_stage: Annotated[int, Field(ge=1, le=3)] = 2
    """Of DeepSpeed: what is split over the processes."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass, to save memory."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """How many of the last ones stay on disk."""
    log_every: Count = 10
    """Steps between rows of metrics."""
    validate_every: CountOrNone = 250
    """Steps between validations; 0: none."""
    clip_start_stride: CountOrNone = 0
    """With shorter videos than clips: a training window starts every so many frames; 0: only at the clip's start."""
    swap_agents: bool = True
    """Half of the pairs with agents 0 and 1 exchanged."""

    @model_validator(mode="after")
    def a_batch_is_of_whole_passes(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise Misfit(
                f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}",
                "change one of them",
            )
        return self


class SamplingConfig(Settings):
    """Generation."""

    sampling_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Of the sampler; the noise schedule has 1,000."""
    guidance_scale: Annotated[float, Field(ge=1, le=1)] = 1.0
    """Classifier-free guidance; 1 is none, and nothing else is implemented."""


class Preset(NamedPreset):
    """Everything that decides what a training is."""

    kind: ClassVar[str] = "model preset"
    folder: ClassVar[Path] = FOLDER

    video: VideoConfig = VideoConfig()
    codec: CodecConfig = CodecConfig()
    transformer: TransformerConfig = TransformerConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def pictures_are_of_whole_tokens(self) -> Self:
        patch = self.transformer.patch_size
        side = CODEC_PIXELS * patch
        if self.video.views == "four":  # a view is half as wide and high
            side = math.lcm(side, 2 * CODEC_PIXELS)
        for name in ("height", "width"):
            if (value := getattr(self.video, name)) % side:
                raise Misfit(
                    f"{name} is {value}",
                    f"it must be a multiple of {side} ({patch}-latent patches, 8x codec, whole views)",
                )
        return self

    def identity(self) -> dict[str, Any]:
        """Return what runs and latents are known by: `to_dict` without fields of LATER that have their defaults."""
        values = self.to_dict()
        for name, (section, info) in self.flat_fields().items():
            if name in LATER and values[section][name] == info.default:
                del values[section][name]
        return values

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Frames, channels, height and width of one agent's latents."""
        video = self.video
        return (
            (video.frames - 1) // 4 + 1,
            self.codec.latent_channels,
            video.height // CODEC_PIXELS,
            video.width // CODEC_PIXELS,
        )

    @property
    def raymap_options(self) -> dict[str, Any]:
        """The options of `model.raymap.build_raymaps`."""
        video, transformer = self.video, self.transformer
        return {
            "height": video.height,
            "width": video.width,
            "views": video.views,
            "camera": transformer.camera,
            "unit_m": transformer.raymap_unit_m,
            "centroid_frames": transformer.raymap_centroid,
            "axes": transformer.raymap_axes,
        }
