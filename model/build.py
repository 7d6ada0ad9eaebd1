"""A transformer as a preset describes it, and the text embedding it is given."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import load_file

from model.presets import Preset, PresetError
from model.transformer import ShareVerseTransformer3DModel


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
        try:
            base = CogVideoXTransformer3DModel.from_pretrained(
                config.base_model, subfolder=subfolder(config.base_model)
            )
        except (OSError, ValueError) as error:
            raise PresetError(f"base_model {config.base_model!r} cannot be loaded: {error}") from error
        check_base(base, preset)
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
    model.init_added()
    torch.set_rng_state(generator_state)
    return model


def check_base(base: CogVideoXTransformer3DModel, preset: Preset) -> None:
    """Raise PresetError for a base that would fail, or go on wrongly, in the first step (traps 15 and 26)."""
    config, name = base.config, preset.transformer.base_model
    if config.patch_size_t is not None or config.ofs_embed_dim is not None:
        raise PresetError(f"base_model {name!r} is a CogVideoX 1.5: take CogVideoX-5B-I2V, ShareVerse is built on it.")
    _, channels, height, width = preset.latent_shape
    fits = {
        "in_channels": (config.in_channels, 2 * channels),
        "sample_height": (config.sample_height, height),
        "sample_width": (config.sample_width, width),
        "sample_frames": (config.sample_frames, preset.video.frames),
        "patch_size": (config.patch_size, preset.transformer.patch_size),
        "text_embed_dim": (config.text_embed_dim, preset.transformer.text_embed_dim),
        "max_text_seq_length": (config.max_text_seq_length, preset.transformer.text_tokens),
    }
    for field, (has, needs) in fits.items():
        if has != needs:
            raise PresetError(f"base_model {name!r} has {field} {has} and this preset's video and codec need {needs}.")


def subfolder(path: str) -> str | None:
    """Pipelines keep their transformer in `transformer/`; a folder may be the transformer itself."""
    return None if (Path(path) / "config.json").exists() else "transformer"


def text_embedding(preset: Preset) -> torch.Tensor:
    """Return the empty prompt's embedding [1, L, D]: zeros from scratch, T5("") from its stored file (trap 16)."""
    config = preset.transformer
    shape = (config.text_tokens, config.text_embed_dim)
    if not config.base_model:
        return torch.zeros(1, *shape)
    if not Path(config.text_embedding).is_file():
        raise PresetError(
            f"text_embedding {config.text_embedding!r} is no file: store T5's embedding of the empty prompt "
            "(docs/PAPER_SCALE.md gives the command) and name it."
        )
    stored = load_file(config.text_embedding)["empty"]
    if tuple(stored.shape) != shape:
        raise PresetError(f"text_embedding is {tuple(stored.shape)}: this model takes {shape}.")
    return stored[None]
