"""A pipeline's folder of a model with random weights: it plays, and shows noise."""

from __future__ import annotations

from pathlib import Path

import torch

from model.build import build_pipeline, build_transformer, text_embedding
from model.codec import LinearCodec
from model.presets import Preset
from tasks.play.scenes import read_scene, scene_names


def write_random_model(folder: Path, preset: Preset) -> Path:
    """Write the model that a preset describes, its codec fitted to the scenes' first pictures; return the folder."""
    size = (preset.video.height, preset.video.width)
    stills = [torch.from_numpy(read_scene(name).first_pictures).movedim(-1, 1).float() for name in scene_names()]
    small = torch.cat([torch.nn.functional.interpolate(still, size, mode="area") for still in stills]) / 127.5 - 1
    videos = small[:, :, None].expand(-1, -1, preset.video.frames, -1, -1)
    codec = LinearCodec.fit([videos], preset.codec.latent_channels, preset.codec.chroma_weight)
    build_pipeline(preset, build_transformer(preset), codec, text_embedding(preset)).save_pretrained(folder)
    return folder
