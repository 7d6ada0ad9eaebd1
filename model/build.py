"""Builds the transformer and the pipeline that a preset describes, and loads its text embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from model.codec import Codec, module_of
from model.objective import noise_schedule
from model.pipeline import ShareVersePipeline
from model.presets import Preset, PresetError
from model.text import EmptyText
from model.transformer import ShareVerseTransformer3DModel
from model.weights import WeightsError, check_folder, is_finite, load_weights, local_folder, read_json_object

LEARNED_WITH = "learned_with.json"
"""In the folder of a base of our own: the fields of LEARNED_FIELDS and their values in its training."""
LEARNED_FIELDS = (
    "camera", "raymap_axes", "raymap_unit_m", "raymap_centroid", "prediction", "first_frame", "image_condition",
)  # fmt: skip
"""Fields of a preset whose other values give the same weights another meaning, without an error."""


def cross_agent_options(preset: Preset) -> dict[str, object]:
    """Return the arguments of `ShareVerseTransformer3DModel` that CogVideoX's transformer does not have."""
    transformer = preset.transformer
    return {
        "cross_agent": transformer.cross_agent,
        "cross_agent_mode": transformer.cross_agent_mode,
        "cross_rope": transformer.cross_rope,
        "cross_agent_every": transformer.cross_agent_every,
        "pair_raymaps": preset.pair_raymaps,
    }


def build_transformer(preset: Preset) -> ShareVerseTransformer3DModel:
    """Return the preset's model: from its base model, or from scratch, seeded with `training.seed`.

    PresetError when the base model cannot be loaded or does not fit the preset's video.
    """
    config = preset.transformer
    if config.base_model:
        check_base(preset)
        folder = base_folder(config.base_model)
        try:
            base = load_weights(base_class(folder), folder)
        except WeightsError as error:
            raise PresetError(base_model_error(config.base_model, error)) from error
        return ShareVerseTransformer3DModel.from_base(base, **cross_agent_options(preset))
    return transformer_from_scratch(preset)


def transformer_from_scratch(preset: Preset) -> ShareVerseTransformer3DModel:
    """Return a model of the preset's own sizes, seeded with `training.seed`."""
    config = preset.transformer
    _, channels, height, width = preset.latent_shape
    generator_state = torch.get_rng_state()
    torch.manual_seed(preset.training.seed)
    model = ShareVerseTransformer3DModel(
        num_attention_heads=config.num_attention_heads,
        attention_head_dim=config.attention_head_dim,
        in_channels=2 * channels,
        out_channels=channels,
        time_embed_dim=config.time_embed_dim,
        text_embed_dim=config.text_embed_dim,
        num_layers=config.num_layers,
        sample_width=width,
        sample_height=height,
        sample_frames=preset.video.frames,
        patch_size=config.patch_size,
        max_text_seq_length=config.text_tokens,
        use_rotary_positional_embeddings=True,
        **cross_agent_options(preset),
    )
    model.init_added_modules()
    if preset.predicts_change:
        model.start_at_zero()
    torch.set_rng_state(generator_state)
    return model


def build_pipeline(
    preset: Preset, transformer: ShareVerseTransformer3DModel, codec: Codec, text: torch.Tensor, **options: Any
) -> ShareVersePipeline:
    """Return the pipeline of a preset's model with a text embedding [1, L, D], and `options` of its own in
    addition."""
    raymap = preset.raymap_options
    video = {name: raymap.pop(name) for name in ("height", "width", "views")}
    return ShareVersePipeline(
        transformer,
        module_of(codec),
        noise_schedule(preset.objective),
        EmptyText.of(text),
        frames=preset.video.frames,
        raymap=raymap,
        sampling_steps=preset.sampling.sampling_steps,
        given_frames=preset.given_frames,
        image_condition=preset.objective.image_condition,
        predicts_change=preset.predicts_change,
        **video,
        **options,
    )


def empty_transformer(preset: Preset, *, base_needed: bool = True) -> ShareVerseTransformer3DModel:
    """Return the preset's model on the meta device: its shapes, without memory.

    `base_needed` False: where there is no local copy of the base, the preset's own sizes stand for it. PresetError for
    a base that is missing or does not fit.
    """
    if not preset.transformer.base_model or not (base_needed or has_local_copy(preset.transformer.base_model)):
        with torch.device("meta"):
            return transformer_from_scratch(preset)
    config = {name: value for name, value in dict(check_base(preset).config).items() if not name.startswith("_")}
    with torch.device("meta"):
        return ShareVerseTransformer3DModel(**(config | cross_agent_options(preset)))


def base_folder(name: str) -> Path:
    """Return the folder of a base model's transformer: a pipeline's `transformer/`, or the folder itself. PresetError
    when there is no local copy."""
    try:
        folder = local_folder(name)
    except WeightsError as error:
        raise PresetError(f"base_model {error}.") from error
    return folder if (folder / "config.json").exists() else folder / "transformer"


def has_local_copy(name: str) -> bool:
    """Tell whether a base model is on this machine."""
    try:
        base_folder(name)
    except PresetError:
        return False
    return True


def is_own_base(name: str) -> bool:
    """Tell whether a base model is of our class, so that it knows its cameras. No where it cannot be read, of which
    `check_base` says why."""
    try:
        return base_class(base_folder(name)) is ShareVerseTransformer3DModel
    except (PresetError, WeightsError):
        return False


def base_class(folder: Path) -> type[CogVideoXTransformer3DModel]:
    """Return the class of a base model: CogVideoX's, or ours for a base that knows its cameras. WeightsError when its
    configuration cannot be read."""
    name = read_json_object(folder / "config.json").get("_class_name")
    return (
        ShareVerseTransformer3DModel if name == ShareVerseTransformer3DModel.__name__ else CogVideoXTransformer3DModel
    )


def base_model_error(name: str, error: WeightsError) -> str:
    return f"base_model {name!r} cannot be loaded: {error}; download it again, or name another folder."


def check_base(preset: Preset) -> CogVideoXTransformer3DModel:
    """Return the preset's base model on the meta device (without memory), checked by its configuration and its weights'
    headers.

    PresetError for one that would fail in the first step, or silently compute something else (trap 15: learned
    positions; trap 26: CogVideoX 1.5 differs; a base of our own with another target).
    """
    name = preset.transformer.base_model
    folder = base_folder(name)
    try:
        config = read_json_object(folder / "config.json")
        if config.get("patch_size_t") is not None or config.get("ofs_embed_dim") is not None:
            raise PresetError(
                f"base_model {name!r} is a CogVideoX 1.5: take CogVideoX-5B-I2V, ShareVerse is built on it."
            )
        base, _ = check_folder(base_class(folder), folder)
    except WeightsError as error:
        raise PresetError(base_model_error(name, error)) from error
    _, channels, height, width = preset.latent_shape
    needed_config = {
        "in_channels": 2 * channels,  # noisy latents and the image condition
        "sample_height": height,
        "sample_width": width,
        "sample_frames": preset.video.frames,
        "patch_size": preset.transformer.patch_size,
        "text_embed_dim": preset.transformer.text_embed_dim,
        "max_text_seq_length": preset.transformer.text_tokens,
    }
    for field, needed in needed_config.items():
        if (actual := getattr(base.config, field)) != needed:
            raise PresetError(
                f"base_model {name!r} has {field} {actual} and this preset's video and codec need {needed}: name "
                "another base_model, or change the preset."
            )
    check_learned_with(preset, folder)
    return base


def check_learned_with(preset: Preset, folder: Path) -> None:
    """Raise PresetError when a base of our own learned with other inputs or another target than the preset gives it."""
    if not (folder / LEARNED_WITH).exists():
        return
    name, fields = preset.transformer.base_model, preset.flat()
    try:
        learned_with = read_json_object(folder / LEARNED_WITH)
    except WeightsError as error:
        raise PresetError(base_model_error(name, error)) from error
    for field, value in learned_with.items():
        if (actual := fields.get(field)) != value:
            raise PresetError(
                f"base_model {name!r} learned with {field} {value!r} and this preset has {actual!r}: set {field} to "
                f"{value!r}, or name another base_model."
            )


def text_embedding(preset: Preset) -> torch.Tensor:
    """Return the empty prompt's embedding [1, L, D]: T5("") from its stored file (trap 16: never load T5 to train), or
    zeros for a model from scratch or from a base of our own, which was.

    PresetError for a file that is missing, damaged, or of another shape.
    """
    config = preset.transformer
    shape = (config.text_tokens, config.text_embed_dim)
    if not config.base_model or (not config.text_embedding and is_own_base(config.base_model)):
        return torch.zeros(1, *shape)
    name = config.text_embedding
    advice = "make it with `python -m model.empty_prompt BASE FILE` (docs/PAPER_SCALE.md) and name it."
    if not Path(name).is_file():
        raise PresetError(f"text_embedding {name!r} is no file: it holds T5's embedding of the empty prompt; {advice}")
    try:
        stored = load_file(name)
    except (OSError, SafetensorError) as error:
        raise PresetError(f"text_embedding {name!r} cannot be read ({error}): {advice}") from error
    embedding = stored.get("empty")
    if embedding is None:
        raise PresetError(f"text_embedding {name!r} holds no tensor 'empty': {advice}")
    if tuple(embedding.shape) != shape:
        raise PresetError(f"text_embedding {name!r} is {tuple(embedding.shape)} and this model takes {shape}: {advice}")
    if not embedding.is_floating_point() or not is_finite(embedding):
        raise PresetError(f"text_embedding {name!r} holds values that are not finite numbers: {advice}")
    return embedding[None]
