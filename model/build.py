"""A transformer as a preset describes it, and the text embedding it is given."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from model.presets import Preset, PresetError
from model.transformer import ShareVerseTransformer3DModel
from model.weights import WeightsError, check_folder, is_finite, load_weights, local_folder, read_object


def switches(preset: Preset) -> dict[str, object]:
    transformer = preset.transformer
    return {
        "cross_agent": transformer.cross_agent,
        "cross_agent_mode": transformer.cross_agent_mode,
        "cross_rope": transformer.cross_rope,
        "cross_agent_every": transformer.cross_agent_every,
    }


def build_transformer(preset: Preset) -> ShareVerseTransformer3DModel:
    """Return the preset's model, from its base or, seeded by `training.seed`, from scratch.

    PresetError when the base cannot be loaded or does not fit the preset's video.
    """
    config = preset.transformer
    if config.base_model:
        check_base(preset)
        try:
            base = load_weights(CogVideoXTransformer3DModel, base_folder(config.base_model))
        except WeightsError as error:
            raise PresetError(refused(config.base_model, error)) from error
        return ShareVerseTransformer3DModel.from_base(base, **switches(preset))
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
        **switches(preset),
    )
    model.init_added_modules()
    torch.set_rng_state(generator_state)
    return model


def described_transformer(preset: Preset) -> ShareVerseTransformer3DModel:
    """Return the preset's model without memory, on the meta device: its sizes. PresetError as `build_transformer`."""
    if not preset.transformer.base_model:
        with torch.device("meta"):
            return build_transformer(preset)
    config = {name: value for name, value in dict(check_base(preset).config).items() if not name.startswith("_")}
    with torch.device("meta"):
        return ShareVerseTransformer3DModel(**config, **switches(preset))


def base_folder(name: str) -> Path:
    """Return the folder of a base's transformer: a pipeline's `transformer/`, or the folder itself. PresetError."""
    try:
        folder = local_folder(name)
    except WeightsError as error:
        raise PresetError(f"base_model {error}.") from error
    return folder if (folder / "config.json").exists() else folder / "transformer"


def refused(name: str, error: WeightsError) -> str:
    return f"base_model {name!r} cannot be loaded: {error}; download it again, or name another folder."


def check_base(preset: Preset) -> CogVideoXTransformer3DModel:
    """Return the preset's base without memory, on the meta device, from its configuration and its weights' headers.

    PresetError for one that would fail, or go on wrongly, in the first step (traps 15 and 26).
    """
    name = preset.transformer.base_model
    folder = base_folder(name)
    try:
        config = read_object(folder / "config.json")
        if config.get("patch_size_t") is not None or config.get("ofs_embed_dim") is not None:
            raise PresetError(
                f"base_model {name!r} is a CogVideoX 1.5: take CogVideoX-5B-I2V, ShareVerse is built on it."
            )
        base, _ = check_folder(CogVideoXTransformer3DModel, folder)
    except WeightsError as error:
        raise PresetError(refused(name, error)) from error
    has = base.config
    _, channels, height, width = preset.latent_shape
    fits = {
        "in_channels": (has.in_channels, 2 * channels),
        "sample_height": (has.sample_height, height),
        "sample_width": (has.sample_width, width),
        "sample_frames": (has.sample_frames, preset.video.frames),
        "patch_size": (has.patch_size, preset.transformer.patch_size),
        "text_embed_dim": (has.text_embed_dim, preset.transformer.text_embed_dim),
        "max_text_seq_length": (has.max_text_seq_length, preset.transformer.text_tokens),
    }
    for field, (value, needs) in fits.items():
        if value != needs:
            raise PresetError(
                f"base_model {name!r} has {field} {value} and this preset's video and codec need {needs}: name another "
                "base_model, or change the preset."
            )
    return base


def text_embedding(preset: Preset) -> torch.Tensor:
    """Return the empty prompt's embedding [1, L, D]: zeros from scratch, T5("") from its stored file (trap 16).

    PresetError for a file that is missing, damaged, or of another shape.
    """
    config = preset.transformer
    shape = (config.text_tokens, config.text_embed_dim)
    if not config.base_model:
        return torch.zeros(1, *shape)
    name = config.text_embedding
    make = "make it with `python -m model.empty_prompt BASE FILE` (docs/PAPER_SCALE.md) and name it."
    if not Path(name).is_file():
        raise PresetError(f"text_embedding {name!r} is no file: it holds T5's embedding of the empty prompt; {make}")
    try:
        stored = load_file(name)
    except (OSError, SafetensorError) as error:
        raise PresetError(f"text_embedding {name!r} cannot be read ({error}): {make}") from error
    found = stored.get("empty")
    if found is None:
        raise PresetError(f"text_embedding {name!r} holds no tensor 'empty': {make}")
    if tuple(found.shape) != shape:
        raise PresetError(f"text_embedding {name!r} is {tuple(found.shape)} and this model takes {shape}: {make}")
    if not found.is_floating_point() or not is_finite(found):
        raise PresetError(f"text_embedding {name!r} holds values that are not finite numbers: {make}")
    return found[None]
