"""A folder as `shareverse export` writes it, of a model with random weights: it plays, and shows noise."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from model.build import build_transformer
from model.codec import LinearCodec
from model.presets import Preset
from tasks.play.scenes import read_scene, scene_names
from tasks.runs.run import Run


def write_random_model(folder: Path, preset: Preset) -> Path:
    """Write the model that a preset describes, its codec fitted to the scenes' first pictures; return the folder."""
    run = Run("none", "0" * 64, preset)
    build_transformer(preset).save_pretrained(folder / "transformer", safe_serialization=True)
    size = (preset.video.height, preset.video.width)
    stills = [torch.from_numpy(read_scene(name).first_pictures).movedim(-1, 1).float() for name in scene_names()]
    small = torch.cat([torch.nn.functional.interpolate(still, size, mode="area") for still in stills]) / 127.5 - 1
    videos = small[:, :, None].expand(-1, -1, preset.video.frames, -1, -1)
    codec = LinearCodec.fit([videos], preset.codec.latent_channels, preset.codec.chroma_weight)
    codec.save_pretrained(folder / "codec", safe_serialization=True)
    record = {"run_id": run.run_id, "dataset": run.dataset, "dataset_digest": run.dataset_digest,
              "preset": preset.to_dict(), "name": run.name}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return folder
