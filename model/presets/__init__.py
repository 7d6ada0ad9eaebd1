"""Model and training presets: TOML files in this folder, read into frozen dataclasses.

Field names are unique over all sections, so any of them can be changed by its bare name.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


class PresetError(ValueError):
    """A preset that does not exist or does not make sense: what, which value, what to do."""


@dataclass(frozen=True)
class VideoConfig:
    """What the model sees of a clip."""

    frames: int = 49
    """8k+1: the CogVideoX VAE decodes other counts wrongly, without an error (trap 37)."""
    height: int = 480
    width: int = 720
    """Of the mosaic; of the front view for views "front"."""
    views: str = "four"


@dataclass(frozen=True)
class CodecConfig:
    """Pixels to latents: 8x in space, 4x in time, the first frame apart."""

    codec: str = "cogvideox"
    """"cogvideox": AutoencoderKLCogVideoX; "linear": a fixed basis fitted on the training clips (trap 38)."""
    codec_path: str = "THUDM/CogVideoX-5b-I2V"
    latent_channels: int = 16
    chroma_weight: float = 1.0
    """Of the linear codec: how many times an error of colour counts one of brightness."""


@dataclass(frozen=True)
class TransformerConfig:
    """The transformer; with a `base_model` its sizes come from there."""

    base_model: str = "THUDM/CogVideoX-5b-I2V"
    """diffusers folder or name of a CogVideoX-5B-I2V; empty: from scratch with the sizes below."""
    num_layers: int = 42
    num_attention_heads: int = 48
    attention_head_dim: int = 64
    patch_size: int = 2
    time_embed_dim: int = 512
    text_embed_dim: int = 4096
    text_tokens: int = 226
    text_embedding: str = ""
    """safetensors file with T5("") as `empty` [226, 4096] (trap 16; docs/PAPER_SCALE.md); from scratch: zeros."""
    camera: str = "raymap"
    cross_agent: str = "on"
    cross_agent_mode: str = "attention"
    cross_rope: str = "doubled"
    cross_agent_every: int = 2
    raymap_unit_m: float = 1.0
    """Metres that count as 1 in ray origins."""
    raymap_centroid: str = "all"
    """"all" frames (paper) or the "first" (trap 41)."""
    raymap_axes: str = "map"
    """The "map"'s (paper), or turned so that "agent0" looks along x in frame 0."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss and its conditions."""

    snr_shift_scale: float = 1.0
    timestep_bias: float = 1.0
    """1: uniform; larger: more of the noisy end."""
    image_noise: bool = True
    """Noise on the first frame's pixels in training (trap 19), sigma = exp(N(mean, std))."""
    image_noise_mean: float = -3.0
    image_noise_std: float = 0.5
    image_dropout: float = 0.05
    raymap_translation_m: float = 10.0
    """Standard deviation of the random translation common to a pair's cameras."""


@dataclass(frozen=True)
class TrainingConfig:
    """The optimisation."""

    seed: int = 0
    learning_rate: float = 2e-5
    batch_size: int = 16
    """Pairs in a step, over all processes."""
    micro_batch_size: int = 1
    """Pairs in a forward pass of one process."""
    train_steps: int = 10_000
    warmup_steps: int = 100
    lr_schedule: str = "constant"
    """After the warm-up: "constant", or "cosine" down to 5 % at the last step."""
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0
    precision: str = "bf16"
    """"auto": bf16 where the hardware multiplies it, else fp32."""
    zero_stage: int = 2
    gradient_checkpointing: bool = True
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    log_every: int = 10
    validate_every: int = 250
    clip_start_stride: int = 0
    """With shorter videos than clips: a training window starts every so many frames; 0: only at the clip's start."""
    swap_agents: bool = True


@dataclass(frozen=True)
class SamplingConfig:
    """Generation."""

    sampling_steps: int = 50
    guidance_scale: float = 1.0


SECTIONS: dict[str, type] = {
    "video": VideoConfig,
    "codec": CodecConfig,
    "transformer": TransformerConfig,
    "objective": ObjectiveConfig,
    "training": TrainingConfig,
    "sampling": SamplingConfig,
}
CHOICES = {
    "views": ("four", "front"),
    "codec": ("cogvideox", "linear"),
    "camera": ("raymap", "raw"),
    "cross_agent": ("on", "within", "off"),
    "cross_agent_mode": ("attention", "block"),
    "cross_rope": ("doubled", "shared"),
    "raymap_centroid": ("all", "first"),
    "raymap_axes": ("map", "agent0"),
    "lr_schedule": ("constant", "cosine"),
    "precision": ("auto", "bf16", "fp32"),
    "zero_stage": (1, 2, 3),
}
LATER = ("chroma_weight",)
"""Fields that came after the first runs: while they have their defaults, runs and latents are not known by them."""
NOT_NEGATIVE = ("seed", "warmup_steps", "clip_start_stride", "validate_every")


@dataclass(frozen=True)
class Preset:
    """Everything that decides what a training is."""

    name: str
    video: VideoConfig = field(default_factory=VideoConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    @classmethod
    def load(cls, name_or_path: str) -> Preset:
        """Read `<name>.toml` of this folder, or a file. PresetError names what does not fit."""
        path = Path(name_or_path) if name_or_path.endswith(".toml") else FOLDER / f"{name_or_path}.toml"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
            raise PresetError(
                f"there is no model preset {name_or_path!r}: take one of {known}, or a path to a .toml file."
            )
        try:
            values = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as error:
            raise PresetError(f"{path} is no TOML: {error}") from error
        return cls.from_dict({"name": path.stem, **values})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preset:
        """Make a preset of what `to_dict` gave. PresetError names an unknown or impossible field."""
        sections: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            sections[section] = section_of(kind, section, values.get(section, {}))
        unknown = set(values) - set(SECTIONS) - {"name"}
        if unknown:
            raise PresetError(f"a preset has no section {min(unknown)!r}: it has {', '.join(SECTIONS)}.")
        return checked(cls(str(values["name"]), **sections))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """Return what runs and latents are known by: `to_dict` without fields of LATER that have their defaults."""
        values = self.to_dict()
        for section, kind in SECTIONS.items():
            for known in fields(kind):
                if known.name in LATER and values[section][known.name] == known.default:
                    del values[section][known.name]
        return values

    def flat(self) -> dict[str, Any]:
        """Return all fields by their bare names."""
        return {
            name: value for section in SECTIONS for name, value in dataclasses.asdict(getattr(self, section)).items()
        }

    def replace(self, **changes: Any) -> Preset:
        """Return a preset with fields changed by their bare names."""
        values = self.to_dict()
        owner = {f.name: section for section, kind in SECTIONS.items() for f in fields(kind)}
        for name, value in changes.items():
            if name not in owner:
                raise PresetError(f"a preset has no field {name!r}: its fields are {', '.join(sorted(owner))}.")
            values[owner[name]][name] = value
        return Preset.from_dict(values)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Frames, channels, height and width of one agent's latents."""
        video = self.video
        return (video.frames - 1) // 4 + 1, self.codec.latent_channels, video.height // 8, video.width // 8

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


def section_of(kind: type, section: str, values: dict[str, Any]) -> Any:
    """Make one section, every value of its field's type."""
    known = {f.name: f for f in fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise PresetError(f"[{section}] has no field {name!r}: its fields are {', '.join(known)}.")
        wanted = type(known[name].default)
        fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            fits = True
        if not fits:
            raise PresetError(f"{section}.{name} is {value!r}: it takes a {wanted.__name__}.")
    floats = {name for name, known_field in known.items() if isinstance(known_field.default, float)}
    return kind(**{name: float(value) if name in floats else value for name, value in values.items()})


def checked(preset: Preset) -> Preset:
    """Return the preset, or raise PresetError for the first value that cannot work."""
    for name, value in preset.flat().items():
        if name in CHOICES and value not in CHOICES[name]:
            raise PresetError(f"{name} is {value!r}: it is one of {', '.join(map(str, CHOICES[name]))}.")
        if isinstance(value, int) and not isinstance(value, bool) and value < (0 if name in NOT_NEGATIVE else 1):
            raise PresetError(f"{name} is {value}: give {0 if name in NOT_NEGATIVE else 1} or more.")
    video, patch, training = preset.video, preset.transformer.patch_size, preset.training
    if video.frames % 8 != 1:
        raise PresetError(
            f"frames is {video.frames}: it must be 8k+1 (9, 17, 25, 49, ...), or the VAE decodes wrongly."
        )
    side = 8 * patch
    for name, value in (("height", video.height), ("width", video.width)):
        if value % side or (video.views == "four" and value % 16):
            raise PresetError(f"{name} is {value}: it must be a multiple of {side} ({patch}-latent patches, 8x codec).")
    if not training.learning_rate > 0:
        raise PresetError(f"learning_rate is {training.learning_rate}: give a number above 0.")
    if preset.sampling.guidance_scale != 1.0:
        raise PresetError(f"guidance_scale is {preset.sampling.guidance_scale}: only 1, no guidance, is implemented.")
    codec = preset.codec
    if not 0 < codec.chroma_weight < math.inf:
        raise PresetError(f"chroma_weight is {codec.chroma_weight}: give a number above 0 (1: colour counts as is).")
    if codec.codec != "linear" and codec.chroma_weight != 1:
        raise PresetError(
            f"chroma_weight is {codec.chroma_weight}: only the linear codec weighs chroma; set codec to linear, or 1."
        )
    if preset.transformer.attention_head_dim % 16:
        raise PresetError(
            f"attention_head_dim is {preset.transformer.attention_head_dim}: it must be a multiple of 16, which the "
            "rotary positions are divided by."
        )
    if training.batch_size % training.micro_batch_size:
        raise PresetError(
            f"batch_size {training.batch_size} is no multiple of micro_batch_size {training.micro_batch_size}."
        )
    return preset
