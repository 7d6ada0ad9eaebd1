"""Model and training presets: TOML files in this folder, read into frozen settings.

Field names are unique across sections, so every field can be changed by its bare name.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from model.presets.base import Count, CountOrNone, Frames, NamedPreset, NotEmpty, PresetError, Seed, Settings
from model.presets.messages import FieldConflict

__all__ = [
    "FIELDS_ADDED_LATER", "FOLDER", "SPATIAL_FACTOR", "TEMPORAL_FACTOR", "CodecConfig", "CrossAgent", "LearningRate",
    "ObjectiveConfig", "Preset", "PresetError", "SamplingConfig", "Seed", "TrainSteps", "TrainingConfig",
    "TransformerConfig", "VideoConfig",
]  # fmt: skip

FOLDER = Path(__file__).parent
SPATIAL_FACTOR, TEMPORAL_FACTOR = 8, 4
"""The codec's compression: 8x per side, and 4x in time after the first frame."""
FIELDS_ADDED_LATER = (
    "chroma_weight", "fitted_codec", "prediction", "first_frame", "image_condition", "trainable", "lora_rank",
    "lora_alpha", "lora_targets", "optimizer", "offload_optimizer", "positions",
)  # fmt: skip
"""Fields that did not exist when the first runs were made. At their defaults they do not enter the ids of runs and
latents, so that older ones are still found."""

Side = Annotated[int, Field(ge=16, le=8192)]
Size = Annotated[int, Field(ge=1, le=65_536)]
PathOrHubName = Annotated[
    str, Field(max_length=4096, pattern=r"^[^\x00]*$", json_schema_extra={"wording": "a path or a name"})
]
"""A path, or the name of a model on the Hugging Face hub; empty: none."""
Metres = Annotated[float, Field(ge=0, le=1e6)]
LearningRate = Annotated[float, Field(gt=0, le=1e9, strict=True, allow_inf_nan=False)]
TrainSteps = Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)]
CrossAgent = Literal["on", "within", "off"]
LoraTarget = Literal["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]


class VideoConfig(Settings):
    """What the model sees of a clip."""

    frames: Frames = 49
    """Length of a clip, 8k+1: CogVideoX's VAE decodes other lengths wrongly, without an error (trap 37: 8k+1 frames
    only)."""
    height: Side = 480
    """Height in pixels of the mosaic, or of the front view where `views` is "front"."""
    width: Side = 720
    """Width in pixels of the same."""
    views: Literal["four", "front"] = "four"
    """All four cameras in a mosaic, or the front one alone."""


class CodecConfig(Settings):
    """From pixels to latents: 8x smaller per side, 4x shorter in time, with the first frame on its own."""

    codec: Literal["cogvideox", "linear"] = "cogvideox"
    """"cogvideox": AutoencoderKLCogVideoX; "linear": a fixed basis fitted to the training clips (trap 38: small VAEs
    are worse)."""
    codec_path: PathOrHubName = "THUDM/CogVideoX-5b-I2V"
    """The VAE's folder, or its name on the Hugging Face hub."""
    latent_channels: Annotated[int, Field(ge=1, le=3 * SPATIAL_FACTOR**2)] = 16
    """Channels of a latent; at most the number of pixel values that a latent of the first frame encodes."""
    chroma_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Linear codec only: how much more an error in colour counts than one in brightness."""
    fitted_codec: PathOrHubName = ""
    """Linear codec only: a folder whose `codec/` was fitted before, that of a base for instance; empty: fitted to the
    training clips."""

    @model_validator(mode="after")
    def only_linear_codec_weighs_chroma(self) -> Self:
        if self.codec != "linear" and self.chroma_weight != 1:
            raise FieldConflict(
                f"chroma_weight is {self.chroma_weight}",
                "only the linear codec weighs chroma; set codec to linear, or chroma_weight to 1",
            )
        return self

    @model_validator(mode="after")
    def only_linear_codec_is_fitted(self) -> Self:
        if self.codec != "linear" and self.fitted_codec:
            raise FieldConflict(
                f"fitted_codec is {self.fitted_codec!r}",
                "only the linear codec is fitted; set codec to linear, or name a VAE in codec_path",
            )
        return self


class TransformerConfig(Settings):
    """The transformer. With a `base_model` its sizes come from there."""

    base_model: PathOrHubName = "THUDM/CogVideoX-5b-I2V"
    """A CogVideoX-5B-I2V: its diffusers folder or its name on the Hugging Face hub; empty: from scratch, with the sizes
    below."""
    num_layers: Annotated[int, Field(ge=1, le=1000)] = 42
    """Number of DiT blocks."""
    num_attention_heads: Annotated[int, Field(ge=1, le=1024)] = 48
    """Attention heads per block."""
    attention_head_dim: Annotated[int, Field(ge=16, le=1024, multiple_of=16)] = 64
    """Channels per head; a multiple of 16, so that rotary positions can be split over time, height and width."""
    patch_size: Annotated[int, Field(ge=1, le=64)] = 2
    """Side, in latents, of the square patch that becomes one token."""
    time_embed_dim: Size = 512
    """Channels of the timestep embedding."""
    text_embed_dim: Size = 4096
    """Channels of the text embedding."""
    text_tokens: Size = 226
    """Length of the text embedding in tokens."""
    text_embedding: PathOrHubName = ""
    """safetensors file with T5("") as `empty` [226, 4096] (docs/PAPER_SCALE.md); not used from scratch, where the
    embedding is zeros (trap 16: never load T5 to train)."""
    positions: Literal["learned", "interpolated", "dropped"] = "learned"
    """The base's learned positions: as they were "learned", for its own picture and frames alone, "interpolated" for
    the preset's (model/positions.py), or "dropped", which leaves the rotary ones."""
    camera: Literal["raymap", "raw"] = "raymap"
    """Camera poses as one ray per pixel, or as raw values (the ablation)."""
    cross_agent: CrossAgent = "on"
    """Cross-agent blocks "on", the same blocks "within" one agent (the equal-capacity control), or "off"."""
    cross_agent_mode: Literal["attention", "block"] = "attention"
    """A cross-agent block is attention alone, or also has the feed-forward half of a DiT block."""
    cross_rope: Literal["doubled", "shared"] = "doubled"
    """Rotary positions of cross-agent attention: the agents' frames one after the other, or one time axis for all."""
    cross_agent_every: Annotated[int, Field(ge=1, le=1000)] = 2
    """Every how many DiT blocks there is a raymap encoder and a cross-agent block."""
    raymap_unit_m: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Length in metres of one unit of the ray origins."""
    raymap_centroid: Literal["all", "first"] = "all"
    """Origin of the rays: the mean camera position over "all" frames (paper) or in the "first" (trap 41: future
    leaks)."""
    raymap_axes: Literal["map", "agent0", "own"] = "map"
    """Axes of the rays: the "map"'s (paper), rotated so that "agent0" looks along x in frame 0, or each agent's "own":
    from its own place and heading in frame 0."""


class ObjectiveConfig(Settings):
    """The loss and its conditions."""

    prediction: Literal["v", "x", "change"] = "v"
    """What the model returns: "v" (paper), "x", the clean latents, or the "change" from a video that stands still to x
    (model/objective.py)."""
    first_frame: Literal["generated", "given"] = "generated"
    """Whether the first frame is "generated" like the others (paper), or "given": clean at every step, without loss."""
    image_condition: Literal["first", "all"] = "first"
    """The latent frames beside which the picture's latents are put: the "first" and zeros after it (CogVideoX), or
    "all", those of a video that stands still: a small model need not learn to look them up."""
    snr_shift_scale: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """By which the noise schedule's signal-to-noise ratio is shifted; 1 leaves it as it is."""
    timestep_bias: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """1 draws timesteps uniformly; larger values prefer the noisy end."""
    image_noise: bool = True
    """Whether to add noise of sigma = exp(N(mean, std)) to the first frame's pixels in training (trap 19: training
    only)."""
    image_noise_mean: Annotated[float, Field(ge=-100, le=20)] = -3.0
    """Mean of log sigma."""
    image_noise_std: Annotated[float, Field(ge=0, le=20)] = 0.5
    """Standard deviation of log sigma."""
    image_dropout: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the pairs that are trained without their first frames."""
    raymap_translation_m: Metres = 10.0
    """Standard deviation, in metres, of the random translation that all cameras of a pair share."""

    @model_validator(mode="after")
    def a_change_is_from_a_video_that_stands_still(self) -> Self:
        if self.prediction == "change" and self.image_condition != "all":
            raise FieldConflict(
                f"image_condition is {self.image_condition!r}",
                "prediction is 'change', from the picture beside every frame; set image_condition to all, or "
                "prediction to x or v",
            )
        return self


class TrainingConfig(Settings):
    """The optimisation."""

    seed: Seed = 0
    """Of the initial weights (from scratch), the order of the pairs, and their noise."""
    learning_rate: LearningRate = 2e-5
    """AdamW's, after the warm-up."""
    batch_size: Count = 16
    """Pairs per optimiser step, over all processes."""
    micro_batch_size: Count = 1
    """Pairs per forward pass of one process."""
    train_steps: TrainSteps = 10_000
    """Number of optimiser steps."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000)] = 100
    """Steps over which the learning rate grows from 0."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: "constant", or "cosine" down to 5 % at the last step."""
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 1e-4
    """AdamW's."""
    max_grad_norm: Annotated[float, Field(ge=0, le=1e9)] = 1.0
    """Norm to which gradients are clipped; 0: never."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights; 0: none."""
    precision: Literal["auto", "bf16", "fp32"] = "bf16"
    """"auto": bf16 where the hardware multiplies it, else fp32."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """AdamW with moments in float32, or in 8 bits (Dettmers et al., arXiv 2110.02861), which needs bitsandbytes."""
    offload_optimizer: bool = False
    """Whether AdamW's state, its step and the gradients are the host's (Ren et al., ZeRO-Offload, arXiv 2101.06840):
    they take no memory of the card."""
    zero_stage: Annotated[int, Field(ge=1, le=3)] = 2
    """DeepSpeed's ZeRO stage: what is sharded over the processes."""
    gradient_checkpointing: bool = True
    """Whether to recompute activations in the backward pass, which saves memory."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """How many of the latest checkpoints to keep."""
    log_every: Count = 10
    """Steps between rows of metrics."""
    validate_every: CountOrNone = 250
    """Steps between validations; 0: never."""
    clip_start_stride: CountOrNone = 0
    """Frames between the starts of the training windows in a clip that is longer than the video; 0: one window, at the
    clip's start."""
    swap_agents: bool = True
    """Whether agents 0 and 1 are swapped in a random half of the pairs."""
    trainable: Literal["all", "added", "lora"] = "all"
    """"all" weights are trained (paper), or the base stays frozen and only what ShareVerse adds to it is ("added"), or
    that and low-rank updates of the base's DiT blocks ("lora"; Hu et al., arXiv 2106.09685)."""
    lora_rank: Annotated[int, Field(ge=1, le=4096, strict=True)] = 64
    """LoRA only: rank of the updates."""
    lora_alpha: Annotated[float, Field(gt=0, le=1e6)] = 64.0
    """LoRA only: the updates are scaled by `lora_alpha` / `lora_rank`."""
    lora_targets: NotEmpty[LoraTarget] = ("to_q", "to_k", "to_v", "to_out.0")
    """LoRA only: the linear layers of a DiT block that are updated."""

    @model_validator(mode="after")
    def the_optimizer_fits_its_stage(self) -> Self:
        if self.offload_optimizer and self.optimizer != "adamw":
            raise FieldConflict(
                f"offload_optimizer is True and optimizer {self.optimizer!r}",
                "the host's step is not made for 8 bits; set offload_optimizer to false, or optimizer to adamw",
            )
        if self.offload_optimizer and self.zero_stage != 2:
            raise FieldConflict(
                f"offload_optimizer is True and zero_stage {self.zero_stage}",
                "only ZeRO-2 takes its state to the host here; set zero_stage to 2, or offload_optimizer to false",
            )
        if self.optimizer == "adamw8bit" and self.zero_stage == 3:
            raise FieldConflict(
                "optimizer is 'adamw8bit' and zero_stage 3",
                "8 bits are for ZeRO-1 and ZeRO-2 here; set zero_stage to 2, or optimizer to adamw",
            )
        return self

    @model_validator(mode="after")
    def batch_is_whole_micro_batches(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise FieldConflict(
                f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}",
                "change one of them",
            )
        return self


class SamplingConfig(Settings):
    """Generation."""

    sampling_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Denoising steps per video; the noise schedule has 1,000."""
    guidance_scale: Annotated[float, Field(ge=1, le=1)] = 1.0
    """Classifier-free guidance; 1 is none, and nothing else is implemented."""


class Preset(NamedPreset):
    """All settings of a model and of its training."""

    kind: ClassVar[str] = "model preset"
    folder: ClassVar[Path] = FOLDER

    video: VideoConfig = VideoConfig()
    codec: CodecConfig = CodecConfig()
    transformer: TransformerConfig = TransformerConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def images_are_whole_tokens(self) -> Self:
        patch = self.transformer.patch_size
        side = SPATIAL_FACTOR * patch
        if self.video.views == "four":  # a view is half as wide and high
            side = math.lcm(side, 2 * SPATIAL_FACTOR)
        for name in ("height", "width"):
            if (value := getattr(self.video, name)) % side:
                raise FieldConflict(
                    f"{name} is {value}",
                    f"it must be a multiple of {side} ({patch}-latent patches, 8x codec, whole views)",
                )
        return self

    @model_validator(mode="after")
    def only_a_base_stays_frozen(self) -> Self:
        if self.training.trainable != "all" and not self.transformer.base_model:
            raise FieldConflict(
                f"trainable is {self.training.trainable!r} and base_model is empty",
                "random weights would stay as they are; name a base_model, or set trainable to all",
            )
        return self

    @model_validator(mode="after")
    def only_a_base_has_learned_positions(self) -> Self:
        if self.transformer.positions != "learned" and not self.transformer.base_model:
            raise FieldConflict(
                f"positions is {self.transformer.positions!r} and base_model is empty",
                "a model from scratch has none that were learned; name a base_model, or set positions to learned",
            )
        return self

    def identity(self) -> dict[str, Any]:
        """Return what the ids of runs and latents are made of: `to_dict` without those of FIELDS_ADDED_LATER that have
        their defaults."""
        values = self.to_dict()
        for name, (section, info) in self.flat_fields().items():
            if name in FIELDS_ADDED_LATER and getattr(getattr(self, section), name) == info.default:
                del values[section][name]
        return values

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Frames, channels, height and width of one agent's latents."""
        video = self.video
        return (
            (video.frames - 1) // TEMPORAL_FACTOR + 1,
            self.codec.latent_channels,
            video.height // SPATIAL_FACTOR,
            video.width // SPATIAL_FACTOR,
        )

    @property
    def given_frames(self) -> int:
        """Leading latent frames that are known when the others are generated."""
        return 1 if self.objective.first_frame == "given" else 0

    @property
    def image_frames(self) -> int:
        """Frames of the video whose latents are the image condition: the picture alone, or standing still."""
        return self.video.frames if self.objective.image_condition == "all" else 1

    @property
    def predicts_change(self) -> bool:
        """Whether the model's output is added to the latents of a video that stands still."""
        return self.objective.prediction == "change"

    @property
    def pair_raymaps(self) -> bool:
        """Whether raymaps have a second part for the cross-agent blocks, because own axes do not say where the other
        agent is."""
        return self.transformer.raymap_axes == "own" and self.transformer.cross_agent != "off"

    @property
    def cross_agent_options(self) -> dict[str, Any]:
        """The arguments of `ShareVerseTransformer3DModel` that CogVideoX's transformer does not have."""
        transformer = self.transformer
        return {
            "cross_agent": transformer.cross_agent,
            "cross_agent_mode": transformer.cross_agent_mode,
            "cross_rope": transformer.cross_rope,
            "cross_agent_every": transformer.cross_agent_every,
            "pair_raymaps": self.pair_raymaps,
        }

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
            "pair_axes": self.pair_raymaps,
        }
