"""Builds the transformer and the pipeline that a preset describes, and loads its text embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from model.base_model import Send, empty_on_base, has_local_copy, is_own_base, transformer_on_base
from model.codec import Codec, module_of
from model.objective import noise_schedule
from model.pipeline import ShareVersePipeline
from model.presets import Preset, PresetError
from model.randomness import seeded
from model.text import EmptyText
from model.transformer import ShareVerseTransformer3DModel
from model.weights import is_finite

CPU = torch.device("cpu")


def build_transformer(
    preset: Preset,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
    send: Send | None = None,
    *,
    reads: bool = True,
) -> ShareVerseTransformer3DModel:
    """Return the preset's model: from its base model, or from scratch, seeded with `training.seed`.

    `send` and `reads`: for several processes that build it together, as in `transformer_on_base`. PresetError when the
    base model cannot be loaded or does not fit the preset's video.
    """
    if preset.transformer.base_model:
        return transformer_on_base(preset, dtype, device, send, reads=reads)
    return torch.nn.Module.to(transformer_from_scratch(preset), dtype).to(device)


def transformer_from_scratch(preset: Preset) -> ShareVerseTransformer3DModel:
    """Return a model of the preset's own sizes, seeded with `training.seed`."""
    config = preset.transformer
    _, channels, height, width = preset.latent_shape
    with seeded(preset.training.seed):
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
            **preset.cross_agent_options,
        )
        model.init_added_modules()
        if preset.predicts_change:
            model.start_at_zero()
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
    return empty_on_base(preset)


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
